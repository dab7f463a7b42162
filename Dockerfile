# The image of the operator and of the runner of database Jobs: Python, the locked packages, nothing else. Builds for any platform of the base image.
# For a build that can be repeated, name the base by its digest: --build-arg BASE=python:3.13-slim@sha256:...
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
# The packages first: they change seldom, and this layer is kept. uv checks each against its hash in uv.lock.
RUN uv sync --frozen --no-dev --extra database --no-install-project --compile-bytecode --python-preference only-system
COPY operator ./operator
RUN uv sync --frozen --no-dev --extra database --no-editable --compile-bytecode --python-preference only-system

FROM ${BASE}
COPY --from=build /src/.venv /src/.venv
ENV PATH=/src/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["cutover-operator"]
