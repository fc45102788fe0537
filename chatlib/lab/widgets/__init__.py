"""Live widgets for JupyterLab: what users, queues and brokers do while it happens. Every one is started by being shown."""
