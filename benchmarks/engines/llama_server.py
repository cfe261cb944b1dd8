"""Runs llama.cpp's own HTTP server (wheel `xllamacpp`) as it comes, on one thread of the CPU.

    python llama_server.py MODEL.gguf SLOTS

Prints the address on which it listens; ends when its standard input does, so that a benchmark
that was killed leaves no server behind.
"""

import sys

import xllamacpp

TOKENS_PER_SLOT = 2048


def main() -> None:
    """Serve until nobody holds the other end of standard input."""
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.n_parallel = int(sys.argv[2])
    params.n_ctx = TOKENS_PER_SLOT * params.n_parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_gpu_layers = 0
    # The server's own place where calls wait must not be its pool of HTTP threads.
    params.n_threads_http = 256
    # Layers would be moved to fit a device's memory: there is none.
    params.fit_params = False
    params.ui = False
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
