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
typedef struct { unsigned gpu, memory; } Rates;
typedef struct { unsigned field, scope; long long at, took; unsigned type, code; unsigned long long value; } Field;
typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } Event;
typedef struct { unsigned version, sensor; int degrees; } Temperature;
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.1", size); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12040; return 0; }
int nvmlDeviceGetArchitecture(void *device, unsigned *chip) { *chip = 9; return 0; }
int nvmlDeviceGetUtilizationRates(void *device, Rates *rates) { rates->gpu = 37; rates->memory = 1; return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) { MAYBE("nvmlDeviceGetPowerUsage"); *mw = 215500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw) { *mw = 700000; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) { *mj = 123456000; return 0; }
int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *mhz) { *mhz = 1000 + type; return 0; }
int nvmlDeviceGetTotalEccErrors(void *device, unsigned kind, unsigned counter, unsigned long long *count) {
  *count = kind == 0 ? 3 : 1;
  return counter;
}
int nvmlDeviceGetRemappedRows(void *device, unsigned *a, unsigned *b, unsigned *c, unsigned *d) {
  *a = 2; *b = 1; *c = 0; *d = 1;
  return 0;
}
int nvmlDeviceGetFanSpeed(void *device, unsigned *percent) { *percent = 30; return 0; }
int nvmlDeviceGetFieldValues(void *device, int count, Field *fields) {
  for (int i = 0; i < count; i++) {
    fields[i].type = fields[i].field == 82 ? 1 : 3;
    fields[i].value = fields[i].field == 82 ? 50 : 5000000000000ULL + fields[i].field;
    fields[i].code = fields[i].field == 198 ? 3 : 0;
  }
  return 0;
}
int nvmlDeviceGetIndex(void *device, unsigned *index) { *index = 0; return 0; }
int nvmlEventSetCreate(void **events) { *events = (void *)2; return 0; }
int nvmlEventSetFree(void *events) { return 0; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *events) { return types == 8 ? 0 : 2; }
int nvmlEventSetWait_v2(void *events, Event *event, unsigned ms) {
  static int told;
  if (told++) { usleep(1000 * ms); return 10; }
  event->device = (void *)1; event->type = 8; event->data = 79;
  return 0;
}
#ifdef OLD
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *degrees) { *degrees = 41; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *bits) { *bits = 0x44; return 0; }
#else
int nvmlDeviceGetTemperatureV(void *device, Temperature *temperature) { temperature->degrees = 41; return 0; }
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *bits) { *bits = 0x44; return 0; }
#endif
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


ASK_FULLY = """
import dataclasses, json, time
from llmswap.runtime.nvml import NvmlReader
from llmswap.runtime.xids import XidWatch
reader = NvmlReader()
(gpu,) = reader.fully().gpus
watch = XidWatch(reader.module, lambda: reader.well)
watch.start()
deadline_s = time.monotonic() + 10
while not any(xid.count for xid in watch.seen() or ()) and time.monotonic() < deadline_s:
    time.sleep(0.01)
heard = [(xid.gpu, xid.code, xid.count) for xid in watch.seen() or () if xid.count]
watch.close()
watch._thread.join(5)
assert not watch._thread.is_alive()
print(json.dumps([dataclasses.asdict(gpu.maker), dataclasses.asdict(gpu.vitals), heard]))
"""


@pytest.fixture(scope="module", params=["new", "old"])
def library(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "nvml.c").write_text(SOURCE)
    assert COMPILER is not None
    flags = ["-shared", "-fPIC", "-w", *(["-DOLD"] if request.param == "old" else [])]
    subprocess.run([COMPILER, *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "nvml.c")], check=True)
    return folder


def ask(library: Path, script: str = ASK, **environ: str):
    environ = {**os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, check=True, timeout=30)
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


def test_vitals_and_events_come_through_the_real_binding(library):
    maker, vitals, heard = ask(library, ASK_FULLY)
    assert (maker["driver"], maker["cuda"], maker["architecture"]) == ("580.1", "12.4", "Hopper")
    assert vitals == {
        "utilization": 0.37,
        "power_w": 215.5,
        "power_limit_w": 700.0,
        "energy_j": 123456.0,
        "temperatures_c": {"gpu": 41.0, "memory": 50},
        "clocks_hz": {"sm": 1.001e9, "memory": 1.002e9},
        "throttled": {
            "sw_power_cap": True,
            "hw_slowdown": False,
            "hw_thermal": True,
            "sw_thermal": False,
            "power_brake": False,
        },
        "pcie_bytes": {"tx": 5_000_000_000_197},
        "ecc_errors": {"corrected": 3, "uncorrected": 1},
        "remapped_rows": {"corrected": 2, "uncorrected": 1, "pending": 0, "failed": 1},
        "fan_ratio": 0.3,
    }
    assert heard == [["0", 79, 1]]


def test_a_reading_that_the_library_refuses_is_absent(library):
    _, vitals, _ = ask(library, ASK_FULLY, FAIL="nvmlDeviceGetPowerUsage=3")
    assert vitals["power_w"] is None
    assert vitals["power_limit_w"] == 700.0
