# The Python scorer with the engine hf on CPU, from Debian packages and hash-pinned wheels alone.
# `just image-cpu` makes the base (debootstrap) and the folder `wheels`, then builds this.
ARG BASE
FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-torch python3-pip \
 && rm -rf /var/lib/apt/lists/*
COPY wheels /wheels
COPY cpu.requirements.txt /wheels/
# --ignore-installed: Debian's own, older copies stay where they are and lose in the search path.
RUN python3 -m pip install --no-index --find-links /wheels --require-hashes --no-deps --ignore-installed \
      --break-system-packages --no-cache-dir -r /wheels/cpu.requirements.txt \
 && rm -r /wheels
COPY src /app/src
ENV PYTHONPATH=/app/src ASSAY_ENGINE=hf HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
    OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1
RUN python3 -m assay_scorer selftest --no-gpu
USER 65532:65532
WORKDIR /
ENTRYPOINT ["python3", "-m", "assay_scorer"]
CMD ["run"]
