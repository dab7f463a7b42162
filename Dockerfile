# The operator's image: Python, the locked packages, nothing else. Builds for any platform of the base image.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
# The packages first: they change seldom, and this layer is kept.
RUN uv sync --frozen --no-dev --no-install-project --compile-bytecode --python-preference only-system
COPY operator ./operator
RUN uv sync --frozen --no-dev --no-editable --compile-bytecode --python-preference only-system

FROM python:3.13-slim
COPY --from=build /src/.venv /src/.venv
ENV PATH=/src/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["cutover-operator"]
