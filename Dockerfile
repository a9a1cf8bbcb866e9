# Two images of one distribution. podman and docker build it alike:
#
#   podman build --target serve -t saddlepoint-serve .                              ONNX Runtime on the CPU
#   podman build --target serve --build-arg RUNTIME=cuda -t saddlepoint-serve .     ... and on CUDA
#   podman build --target train -t saddlepoint-train .                              torch with CUDA
#   podman build --target train --build-arg RUNTIME=cpu -t saddlepoint-train .      ... without what only a GPU needs
#
# The base needs nothing but Python >= 3.11 with venv and pip, wherever they lie. In production name it
# by digest: --build-arg PYTHON_IMAGE=docker.io/library/python@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# What every stage shares: no bytecode at run time (the root is read-only), no cwd on sys.path.
FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/saddlepoint/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1


# Builds into /opt/saddlepoint (what we depend on, by hash) and /opt/app (ourselves): two layers, so that
# a change of ours is a megabyte to pull. /opt/build does the work and stays behind; neither has pip.
# A lock is whole and nothing is resolved here: --no-deps, which also lets serve-cpu.txt replace onnxruntime-gpu.
# Bytecode is made by compileall alone (pip's holds file times) and doesn't look at file times: it is the same
# wherever and whenever the image is built. The first line of the command `saddlepoint` would name /opt/build.
FROM base AS build
# A folder of wheels, where no index is reached: --build-arg PIP_FIND_LINKS=/wheels --volume $PWD/wheels:/wheels
ARG PIP_FIND_LINKS=
ENV PIP_COMPILE=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/build.txt requirements/
RUN python3 -m venv /opt/build \
 && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt \
 && python3 -m venv --without-pip /opt/saddlepoint


FROM build AS build-serve
ARG RUNTIME=cpu
COPY requirements/serve-${RUNTIME}.txt requirements/
RUN /opt/build/bin/python -m pip --python /opt/saddlepoint/bin/python install \
      --no-deps --require-hashes --only-binary :all: -r requirements/serve-${RUNTIME}.txt \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/saddlepoint/lib
COPY pyproject.toml README.md LICENSE saddlepoint.py ./
COPY models models
COPY serving serving
RUN /opt/build/bin/python -m pip install --no-build-isolation --no-deps --target /opt/app . \
 && sed -i '1s|.*|#!/opt/saddlepoint/bin/python|' /opt/app/bin/saddlepoint \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/app


FROM build AS build-train
ARG RUNTIME=cuda
COPY requirements/train-${RUNTIME}.txt requirements/
# torch's wheel is built with CUDA, and loads a library of each package when it is imported, on any machine. Without a
# GPU that is all that is loaded: those that are removed never are. tests/test_train_cpu.py trains without them.
# torch holds sources for newer Pythons too: those, and only those, stay uncompiled.
RUN /opt/build/bin/python -m pip --python /opt/saddlepoint/bin/python install \
      --no-deps --require-hashes --only-binary :all: -r requirements/train-${RUNTIME}.txt \
 && { [ "$RUNTIME" != cpu ] || rm -r /opt/saddlepoint/lib/python3*/site-packages/nvidia/cudnn/lib/libcudnn_*.so* \
      /opt/saddlepoint/lib/python3*/site-packages/nvidia/cu13/lib/libnvrtc*.alt.so* \
      /opt/saddlepoint/lib/python3*/site-packages/nvidia/cu13/lib/libnvperf_*.so*; } \
 && { python3 -m compileall -q -q -j 0 --invalidation-mode unchecked-hash /opt/saddlepoint/lib || true; }
COPY pyproject.toml README.md LICENSE saddlepoint.py ./
COPY models models
COPY training training
RUN /opt/build/bin/python -m pip install --no-build-isolation --no-deps --target /opt/app . \
 && sed -i '1s|.*|#!/opt/saddlepoint/bin/python|' /opt/app/bin/saddlepoint \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/app


# The base without its installers, where docker's python images and Debian's keep them.
FROM base AS final
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
      /usr/bin/pip* /usr/lib/python3/dist-packages/pip* /usr/lib/python3/dist-packages/setuptools* \
      /usr/lib/python3/dist-packages/pkg_resources* /usr/lib/python3/dist-packages/wheel* \
      /usr/lib/python3*/ensurepip /usr/share/python-wheels \
 && install -d -o 10001 -g 10001 /runs /model-repository
ENV HOME=/tmp PATH=/opt/app/bin:$PATH PYTHONPATH=/opt/app ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /


# Trains and publishes: writes to /runs and /model-repository, the defaults seen from /, and to /tmp.
FROM final AS train
COPY --from=build-train /opt/saddlepoint /opt/saddlepoint
COPY --from=build-train /opt/app /opt/app
VOLUME ["/runs", "/model-repository"]
ENTRYPOINT ["python", "-m", "training.run"]
CMD ["digits"]
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="saddlepoint-train" \
      org.opencontainers.image.description="Trains a GAN, exports its generator to ONNX and publishes it." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"


# Serves a repository, mounted read-only at /model-repository. Writes to /tmp and /dev/shm only.
FROM final AS serve
COPY --from=build-serve /opt/saddlepoint /opt/saddlepoint
COPY --from=build-serve /opt/app /opt/app
ENV SADDLEPOINT_HOST=0.0.0.0 \
    SADDLEPOINT_PORT=8000 \
    SADDLEPOINT_REPOSITORY=/model-repository
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/livez' % os.environ['SADDLEPOINT_PORT'], timeout=2)"]
ENTRYPOINT ["python", "-m", "serving.run"]
CMD []
ARG PYTHON_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="saddlepoint-serve" \
      org.opencontainers.image.description="Serves GAN generators over HTTP: POST seeds, get images." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
