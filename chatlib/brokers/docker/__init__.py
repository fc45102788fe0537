"""Brokers in Docker containers. Nothing here imports the docker package before a DockerBroker is made."""

from chatlib.brokers.docker.broker import IMAGE, DockerBroker
from chatlib.brokers.docker.cluster import DockerCluster

__all__ = ["IMAGE", "DockerBroker", "DockerCluster"]
