# docker build -t eorinfer .
# docker run --rm -v "$PWD/runs:/runs" eorinfer run examples/demo.toml --out /runs/demo
FROM python:3.11-slim-bookworm AS build
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        gcc g++ libgsl-dev libfftw3-dev git && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/eorinfer && /opt/eorinfer/bin/pip install -q -c constraints.txt torch==2.13.0
COPY eorinfer eorinfer
COPY simulators simulators
RUN /opt/eorinfer/bin/pip install -q -c constraints.txt '.[dask]'

FROM python:3.11-slim-bookworm
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        libgsl27 libfftw3-single3 libfftw3-double3 libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/eorinfer /opt/eorinfer
WORKDIR /eorinfer
COPY examples examples
ENV PATH=/opt/eorinfer/bin:$PATH HOME=/tmp
ENTRYPOINT ["eorinfer"]
CMD ["--help"]
