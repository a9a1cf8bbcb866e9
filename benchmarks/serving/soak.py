"""Memory under a long load: 200,000 requests of changing shapes, a tenth of them wrong.

wrk sends, over 32 connections, one seed or dozens, PNG, npy and JSON, GETs, and requests that are
refused: not JSON, unknown models, contradictions, unknown paths. The proportional set size of all
processes is taken every half second; the figure is the slope of a straight line through what
follows the first quarter, in which caches and pools fill.

Run: python benchmarks/serving/soak.py [--quick] [--requests N]
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _harness import Running, figure, make_repository, parser, saddlepoint, scratch_folder

CONNECTIONS = 32
WARM_UP = 0.25  # share of the samples that the slope leaves out

SCRIPT = """
local json = { ["Content-Type"] = "application/json" }
local function post(body) return wrk.format("POST", "/v1/generate", json, body) end
local function seeds(num)
  local all = {}
  for i = 1, num do all[i] = math.random(0, 1000000000) end
  return "[" .. table.concat(all, ",") .. "]"
end
local shapes = {
  function() return post('{"seeds":' .. seeds(1) .. '}') end,
  function() return post('{"seeds":' .. seeds(1) .. ',"truncation":0.7}') end,
  function() return post('{"seeds":' .. seeds(math.random(2, 9)) .. '}') end,
  function() return post('{"seeds":' .. seeds(math.random(10, 99)) .. ',"format":"npy"}') end,
  function()
    return wrk.format("GET", "/v1/models/article/images/" .. math.random(0, 99999) .. ".png")
  end,
  function() return wrk.format("GET", "/v1/models") end,
}
local wrong = {
  function() return post('{"seeds":') end,
  function() return post('{"seeds":[1],"model":"m' .. math.random(0, 99999) .. '"}') end,
  function() return post('{"seeds":' .. seeds(9) .. ',"latents":[[1]]}') end,
  function() return wrk.format("GET", "/nothing/" .. math.random(0, 99999)) end,
  function() return wrk.format("DELETE", "/v1/generate") end,
}
function init() math.randomseed(1) end
function request()
  local from = math.random(10) == 1 and wrong or shapes
  return from[math.random(#from)]()
end
function response(status) if status >= 500 then faults = (faults or 0) + 1 end end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done()
  local total = 0
  for _, thread in ipairs(threads) do total = total + (thread:get("faults") or 0) end
  print("faults: " .. total)
end
"""


def soak(running: Running, script: Path, num_requests: int) -> tuple[int, int, list[list[float]]]:
    """Loads until so many requests were answered; gives requests, faults and memory by request."""
    answered = faults = 0
    samples: list[list[float]] = []
    while answered < num_requests:
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d10s", "-s", str(script), running.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        began, taken = time.monotonic(), []
        while process.poll() is None:
            taken.append((time.monotonic() - began, running.memory_mb()))
            time.sleep(0.5)
        output = process.communicate()[0]
        done = re.search(r"(\d+) requests in", output)
        faulty = re.search(r"faults: (\d+)", output)
        if done is None or faulty is None:
            raise RuntimeError(f"wrk's answer can't be read:\n{output}")
        num = int(done[1])
        samples += [[answered + num * at / 10, memory] for at, memory in taken if at <= 10]
        answered += num
        faults += int(faulty[1])
        print(f"{answered:,} of {num_requests:,} requests, {samples[-1][1]:.1f} MB", flush=True)
    return answered, faults, samples


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--requests", type=int, default=200_000)
    options = arguments.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    num_requests = 20_000 if options.quick else options.requests
    with scratch_folder() as folder:
        repository = make_repository(folder, "article")
        script = folder / "soak.lua"
        script.write_text(SCRIPT)
        with saddlepoint(repository, folder) as running:
            answered, faults, samples = soak(running, script, num_requests)
    settled = np.array(samples[int(len(samples) * WARM_UP) :])
    slope = np.polyfit(settled[:, 0], settled[:, 1], 1)[0]
    figure("soak_requests", answered, "1")
    figure("soak_faults", faults, "1")
    figure("soak_memory_first", float(settled[0, 1]), "MB")
    figure("soak_memory_last", float(settled[-1, 1]), "MB")
    figure("soak_slope", float(slope) * 1e5 * 1024, "kB per 100,000 requests")


if __name__ == "__main__":
    main()
