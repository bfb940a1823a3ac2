# One image for CPU and GPU: torch's wheels bring CUDA, the host brings the NVIDIA driver.
# Most of its size is those wheels; they are a layer of their own that only a change of dependencies renews.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /srv/foxhound

# What pyproject.toml asks for, in the pinned versions, before any of our code.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      > /tmp/requirements.txt \
    && pip install --constraint constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt

COPY README.md LICENSE ./
COPY alembic ./alembic
COPY app ./app
COPY foxhound_client ./foxhound_client
# Editable, because the migrations in alembic/ stand beside the package.
RUN pip install --no-deps --editable .

RUN groupadd --system --gid 10001 foxhound \
    && useradd --system --uid 10001 --gid foxhound --create-home foxhound \
    && install --directory --owner=foxhound --group=foxhound --mode=0750 /data /run/foxhound
COPY --chmod=0755 docker/entrypoint.sh /usr/local/bin/entrypoint.sh
USER 10001:10001

# The node's socket stays out of /data, which several nodes may share.
ENV FOXHOUND_HOST=0.0.0.0 \
    FOXHOUND_PORT=8000 \
    FOXHOUND_DATA_DIR=/data \
    FOXHOUND_RUN_DIR=/run/foxhound

VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FOXHOUND_PORT'] + '/livez')"]

ENTRYPOINT ["entrypoint.sh"]
CMD ["serve"]
