# The course in JupyterLab. Lessons that break a broker start a node of their own, so RabbitMQ is in here too;
# CHATLIB_BROKER_URL names the broker for everything else.
FROM python:3.11-slim

WORKDIR /course
RUN useradd --create-home learner

# first what changes rarely: Python packages as locked, RabbitMQ
COPY pyproject.toml requirements.lock requirements-uv.lock README.md LICENSE ./
COPY scripts/setup.sh scripts/setup.sh
RUN mkdir chatlib && CHATLIB_BROKER_URL= scripts/setup.sh lab && rm -rf /var/lib/apt/lists/* "$HOME/.cache"

COPY . .
RUN chown -R learner: .setup notebooks

USER learner
EXPOSE 8888
CMD [".venv/bin/python", "scripts/lab.py", "--host", "0.0.0.0"]
