# The image that runs the pipelines; the target `demo` serves the demo API.
ARG BASE_IMAGE=apache/airflow:3.3.2-python3.12

# ---- what the locks say, and nothing else: what the base image brings beside it was never tested with it
FROM ${BASE_IMAGE} AS locked
USER 50000
WORKDIR /opt/airflow
# Without bytecode every start of Airflow compiles for seconds.
ENV PYTHONPATH=/opt/airflow:/opt/airflow/plugins \
    PYTHONDONTWRITEBYTECODE= \
    UV_COMPILE_BYTECODE=1
COPY requirements.txt ./
RUN grep -q "^apache-airflow-core==${AIRFLOW_VERSION}$" requirements.txt \
    || { echo "requirements.txt does not pin the base image's Airflow ${AIRFLOW_VERSION}: change the one or the other"; exit 1; } \
    && uv pip sync --no-cache requirements.txt

# ---- the demo API, which invents its data with packages that production does not need
FROM locked AS demo
COPY requirements-dev.txt ./
RUN uv pip install --no-cache --constraint requirements-dev.txt faker orjson
COPY --chown=50000:0 include include

# ---- the pipelines
FROM locked AS pipelines
# A named volume takes over the owner of the folder that it is first mounted on.
RUN mkdir -p landing data_docs logs && chmod g+rwX landing data_docs logs
COPY --chown=50000:0 airflow_settings.yaml ./
COPY --chown=50000:0 dags dags
COPY --chown=50000:0 plugins plugins
COPY --chown=50000:0 include include
