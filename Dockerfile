# The submission image: this repository's runner around the plugin in method/.
#
#   docker build -t l2r_submission .
#
# Any base with Python 3.11 or newer (python3 with venv) will do, for instance one that brings
# PyTorch and CUDA: docker build --build-arg BASE_IMAGE=... -t l2r_submission .
ARG BASE_IMAGE=python:3.11-slim-bookworm


# --- Dependencies. What is needed only to install them (compilers, git) goes into this stage. -----
FROM ${BASE_IMAGE} AS dependencies

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# The base's own packages stay visible, so that a base with PyTorch is worth choosing.
RUN python3 -m venv --system-site-packages /opt/venv
ENV PATH=/opt/venv/bin:$PATH

# From what changes least to what changes most: each step is cached until its files change.
COPY constraints.txt /build/
RUN python -m pip install --constraint /build/constraints.txt numpy nibabel pyyaml pydantic

# Not constrained: the method decides about its own versions.
COPY method/requirements.txt /build/
RUN python -m pip install --requirement /build/requirements.txt \
 && python -m pip uninstall --yes pip


# --- Code: only those parts of the package that run inside the container. -------------------------
FROM dependencies AS code

COPY harness/__init__.py harness/errors.py harness/timing.py /opt/l2r/harness/
COPY harness/challenge /opt/l2r/harness/challenge
COPY harness/probe /opt/l2r/harness/probe
COPY harness/runner /opt/l2r/harness/runner
COPY method /opt/l2r/method

# Compiled here, as the user who runs it may not write here. The method may hold files that are no
# Python of this version and are never imported. Modes come from the host, where they may be strict.
RUN python -m compileall -q --invalidation-mode checked-hash /opt/l2r/harness \
 && (python -m compileall -q --invalidation-mode checked-hash /opt/l2r/method || true) \
 && chmod -R a+rX /opt/l2r


# --- The image. -----------------------------------------------------------------------------------
FROM ${BASE_IMAGE}

COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /opt/l2r /opt/l2r

# There is no USER on purpose: it starts as root, and before it loads the method the runner becomes
# the owner of the mounted submission/ folder, or this user when that is root. Why and how:
# harness/runner/privileges.py
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/l2r \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HARNESS_METHOD_DIR=/opt/l2r/method \
    HARNESS_UNPRIVILEGED_UID=10001

WORKDIR /opt/l2r
ENTRYPOINT ["python", "-m", "harness.runner"]
