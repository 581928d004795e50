"""``Dockerfile``: the CUDA runtime, the locked environment, the wheel; nothing runs as root."""

from vfsearch.cluster.values import ClusterValues


def dockerfile(values: ClusterValues) -> str:
    """Text of the Dockerfile; its context is the repository after ``cluster prepare``."""
    image = values.image
    python = f"python{image.python}"
    return f"""\
# Build from the repository's root, after 'vfsearch cluster prepare':
#     docker build -f cluster/Dockerfile -t {values.kubernetes.image} .
FROM {image.base} AS build
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \\
    && apt-get install -y --no-install-recommends {python} {python}-venv \\
    && rm -rf /var/lib/apt/lists/*
COPY cluster/dist /dist
RUN {python} -m venv /opt/vfsearch \\
    && bash /dist/node-setup.sh /opt/vfsearch

FROM {image.base}
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \\
    && apt-get install -y --no-install-recommends {python} libgl1 libglib2.0-0 \\
    && rm -rf /var/lib/apt/lists/* \\
    && (userdel --remove ubuntu 2>/dev/null || true) \\
    && useradd --uid 1000 --create-home {image.user}
COPY --from=build /opt/vfsearch /opt/vfsearch
COPY --chown=1000:1000 search_spaces /home/{image.user}/search_spaces
ENV PATH=/opt/vfsearch/bin:$PATH \\
    RAY_AUTH_MODE=token \\
    RAY_USAGE_STATS_ENABLED=0 \\
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /home/{image.user}
"""
