"""Tests in tiers: unit, broker, faults, notebooks, browser. A folder is a tier and gives the marker of that name."""
