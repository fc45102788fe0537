"""Brokers in Docker containers. Nothing here imports the docker package before a DockerBroker is made."""

from chatlib.brokers.docker.broker import IMAGE, DockerBroker

__all__ = ["IMAGE", "DockerBroker"]
