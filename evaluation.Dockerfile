# The evaluation image: fields in /input (a folder, or a zip in it) to /output/metrics.json.
#
#   make build-evaluation GROUND_TRUTH=folder
#
# or, to mount the truth at /opt/evaluation/ground-truth later, without GROUND_TRUTH. By hand:
# scripts/evaluation-context [folder] | docker build -f evaluation.Dockerfile -t l2r_evaluation -
ARG BASE_IMAGE=python:3.11-slim-bookworm


# --- Dependencies. --------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS dependencies

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

COPY constraints.txt /build/
RUN python -m pip install --constraint /build/constraints.txt \
      numpy scipy numba nibabel pyyaml pydantic psutil \
 && python -m pip uninstall --yes pip


# --- Code, and what Numba makes of it: a container that is read-only could not keep it. -----------
FROM dependencies AS code

COPY harness /opt/evaluation/harness
# Machine code for any processor of this kind, not only for the one that built the image.
ENV NUMBA_CACHE_DIR=/opt/evaluation/compiled \
    NUMBA_CPU_NAME=generic \
    PYTHONPATH=/opt/evaluation
RUN mkdir -p /opt/evaluation/compiled \
 && python -m compileall -q --invalidation-mode checked-hash /opt/evaluation/harness \
 && python -m harness.scoring.compile \
 && chmod -R a+rX /opt/evaluation


# --- The image. -----------------------------------------------------------------------------------
FROM ${BASE_IMAGE}

# Where a site mounts its folders; a user with no rights beyond them.
RUN mkdir -p /input /output /opt/evaluation/ground-truth \
 && chown 10001:10001 /output

COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/evaluation /opt/evaluation
COPY ground-truth /opt/evaluation/ground-truth

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/evaluation \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/opt/evaluation/compiled \
    NUMBA_CPU_NAME=generic

USER 10001:10001
WORKDIR /opt/evaluation
ENTRYPOINT ["python", "-m", "harness.scoring"]
