"""NVIDIA's own binding, over a library in C that stands in for the driver's. Skipped where there is no compiler."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler: the fake of pynvml has to do")
ROOT = Path(__file__).parents[2]

SOURCE = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } Process;
typedef struct { unsigned long long total, free, used; } Memory;
static int asked(const char *name) {  /* FAIL is "nvmlFunction=code" */
  const char *fail = getenv("FAIL");
  size_t length = strlen(name);
  return fail && !strncmp(fail, name, length) && fail[length] == '=' ? atoi(fail + length + 1) : 0;
}
#define MAYBE(name) do { int code = asked(name); if (code) return code; } while (0)
int nvmlInitWithFlags(unsigned flags) {
  if (getenv("HANG")) pause();
  MAYBE("nvmlInit");
  return 0;
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "an error"; }
int nvmlDeviceGetCount_v2(unsigned *count) { MAYBE("nvmlDeviceGetCount"); *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { strncpy(text, "GPU-in-c", size); return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strncpy(text, "Card", size); return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *next) { return 3; }
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
  MAYBE("nvmlDeviceGetMemoryInfo");
  memory->total = 1000; memory->used = 600; memory->free = 400;
  return 0;
}
static int list(unsigned *count, Process *into) {
  if (!into) { *count = 2; return 7; }
  into[0] = (Process){11, 500, -1, -1};
  into[1] = (Process){12, -1, -1, -1};
  *count = 2;
  return 0;
}
#ifdef OLD
int nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, Process *into) { return list(count, into); }
#else
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *into) { return list(count, into); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, Process *into) { *count = 0; return 0; }
#endif
"""

ASK = """
import asyncio, dataclasses, json, os
from llmswap.runtime.gpu import GpuWatch
from llmswap.runtime.nvml import NvmlReader
watch = GpuWatch(NvmlReader(), limit_s=float(os.environ.get("LIMIT_S", "20")))
print(json.dumps(dataclasses.asdict(asyncio.run(watch.ask()))))
"""


@pytest.fixture(scope="module", params=["new", "old"])
def library(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "nvml.c").write_text(SOURCE)
    assert COMPILER is not None
    flags = ["-shared", "-fPIC", "-w", *(["-DOLD"] if request.param == "old" else [])]
    subprocess.run([COMPILER, *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "nvml.c")], check=True)
    return folder


def ask(library: Path, **environ: str):
    environ = {**os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run([sys.executable, "-c", ASK], env=environ, capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout)


def test_reads_through_the_real_binding_also_from_an_old_driver(library):
    (gpu,) = ask(library)["gpus"]
    assert (gpu["uuid"], gpu["name"], gpu["mig"]) == ("GPU-in-c", "Card", False)
    assert (gpu["total_bytes"], gpu["used_bytes"]) == (1000, 600)
    assert gpu["by_pid"] == {"11": 500, "12": None}
    assert "how much" in gpu["problem"]


@pytest.mark.parametrize(
    ("fail", "said"),
    [
        ("nvmlInit=18", "replaced while its old kernel module runs"),
        ("nvmlInit=9", "not loaded"),
        ("nvmlDeviceGetCount=15", "NVML: GPU is lost"),
    ],
)
def test_errors_of_the_library_become_reasons(library, fail, said):
    sample = ask(library, FAIL=fail)
    assert sample["gpus"] == []
    assert said in sample["problem"]


def test_unified_memory_has_no_size(library):
    (gpu,) = ask(library, FAIL="nvmlDeviceGetMemoryInfo=3")["gpus"]
    assert (gpu["total_bytes"], gpu["used_bytes"]) == (None, None)
    assert gpu["by_pid"]["11"] == 500


def test_a_library_that_hangs_at_once_is_given_up_and_does_not_keep_the_process(library):
    assert "has not answered" in ask(library, HANG="1", LIMIT_S="0.2")["problem"]
