/* libnvidia-ml.so.1 for tests: real symbols, answers from the text file that NVML_REPLAY names.

   gpu UUID NAME                      a GPU; they are numbered in their order
   SYMBOL[/ARGUMENT] GPU ANSWER ...   what a function answers of GPU (* for all): the first call the
                                      first answer, and so on; the last one is for all calls after it

   An answer is
     NUMBER               the value; of text the text itself, of two values A,B
     +START,RATE          a counter: START at the beginning, RATE a second since
     @PERIOD,VALUE        entries of VALUE, stamped at multiples of PERIOD us of the wall clock
     PID=BYTES,...        processes ("?" for hidden bytes); "none"
     !CODE                that error
     hang | abort | segv  no answer ever; the process ends. NVML_REPLAY.worst is there then.
   and before each of them may be SECONDS~: a wait. What no line names answers NOT_SUPPORTED.
   Structures and codes are those of NVIDIA's nvml.h. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define OK 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define KEPT 100 /* entries of utilisation */
#define LINES 200
#define LONG 40000

typedef int Code;
typedef struct { int number; char uuid[96], name[96]; } Gpu;
typedef struct { char symbol[96]; int gpu, calls; char answers[LONG]; } Line;
typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute_instance; } Process;
typedef struct { unsigned long long stamp_us, value; } Entry;

static Gpu gpus[16];
static Line lines[LINES];
static int gpu_count, line_count;
static double started_s;

static double now_s(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + now.tv_nsec * 1e-9;
}

static void load(void) {
  char text[LONG + 200], gpu[8];
  const char *name = getenv("NVML_REPLAY");
  FILE *file = name ? fopen(name, "r") : NULL;
  if (!file) abort();
  gpu_count = line_count = 0;
  started_s = now_s(CLOCK_MONOTONIC);
  while (fgets(text, sizeof text, file)) {
    Gpu *known = &gpus[gpu_count];
    Line *line = &lines[line_count];
    if (text[0] == '#' || text[0] == '\n') continue;
    if (sscanf(text, "gpu %95s %95[^\n]", known->uuid, known->name) == 2) {
      known->number = gpu_count++;
    } else if (sscanf(text, "%95s %7s %39999[^\n]", line->symbol, gpu, line->answers) == 3) {
      line->gpu = gpu[0] == '*' ? -1 : atoi(gpu);
      line->calls = 0;
      line_count++;
    } else {
      abort();
    }
    if (line_count == LINES) abort();
  }
  fclose(file);
}

/* The file NVML_REPLAY.worst: now it comes. */
static void leave_word(void) {
  char name[LONG];
  snprintf(name, sizeof name, "%s.worst", getenv("NVML_REPLAY"));
  FILE *file = fopen(name, "w");
  if (file) fclose(file);
}

/* The answer to this call, without its wait. A line that names the GPU counts before one for all. */
static Code next_answer(const char *symbol, const Gpu *gpu, char *answer) {
  Line *found = NULL;
  for (int i = 0; i < line_count; i++) {
    if (strcmp(lines[i].symbol, symbol)) continue;
    if (gpu && lines[i].gpu == gpu->number) { found = &lines[i]; break; }
    if (lines[i].gpu < 0 && !found) found = &lines[i];
  }
  if (!found) return NOT_SUPPORTED;
  char copy[LONG], *rest = copy, *word;
  strcpy(copy, found->answers);
  answer[0] = 0;
  for (int i = 0; i <= found->calls && (word = strtok_r(rest, " ", &rest)); i++) strcpy(answer, word);
  found->calls++;
  char *wait = strchr(answer, '~');
  if (wait) {
    double wait_s = atof(answer);
    struct timespec span = {(time_t)wait_s, (long)((wait_s - (time_t)wait_s) * 1e9)};
    nanosleep(&span, NULL);
    memmove(answer, wait + 1, strlen(wait));
  }
  if (strchr("has", answer[0]) && answer[0]) leave_word();
  if (!strcmp(answer, "hang")) for (;;) pause();
  if (!strcmp(answer, "abort")) abort();
  if (!strcmp(answer, "segv")) *(volatile int *)0 = 1;
  return answer[0] == '!' ? atoi(answer + 1) : OK;
}

static Code number(const char *symbol, const Gpu *gpu, unsigned long long *value) {
  char answer[LONG];
  double start, rate;
  Code code = next_answer(symbol, gpu, answer);
  if (code) return code;
  if (sscanf(answer, "+%lf,%lf", &start, &rate) == 2)
    *value = (unsigned long long)(start + rate * (now_s(CLOCK_MONOTONIC) - started_s));
  else
    *value = strtoull(answer, NULL, 10);
  return OK;
}

static Code small(const char *symbol, const Gpu *gpu, unsigned *value) {
  unsigned long long wide;
  Code code = number(symbol, gpu, &wide);
  if (!code) *value = (unsigned)wide;
  return code;
}

static Code text(const char *symbol, const Gpu *gpu, char *value, unsigned length) {
  char answer[LONG];
  Code code = next_answer(symbol, gpu, answer);
  if (!code) snprintf(value, length, "%s", answer);
  return code;
}

static Code processes(const char *symbol, const Gpu *gpu, unsigned *count, Process *found) {
  static char answer[LONG]; /* the bindings ask twice: for the number, and for the list */
  char copy[LONG], *rest = copy, *word;
  unsigned there = 0;
  if (!found) {
    Code code = next_answer(symbol, gpu, answer);
    if (code) return code;
  }
  if (!strcmp(answer, "none")) { *count = 0; return OK; }
  strcpy(copy, answer);
  while ((word = strtok_r(rest, ",", &rest))) {
    if (found && there < *count) {
      char *bytes = strchr(word, '=') + 1;
      Process process = {(unsigned)atoi(word), *bytes == '?' ? ~0ULL : strtoull(bytes, NULL, 10),
                         ~0U, ~0U};
      found[there] = process;
    }
    there++;
  }
  Code code = found && there <= *count ? OK : INSUFFICIENT_SIZE;
  *count = there;
  return code;
}

Code nvmlInitWithFlags(unsigned flags) {
  unsigned long long ignored;
  (void)flags;
  load();
  Code code = number("nvmlInitWithFlags", NULL, &ignored);
  return code == NOT_SUPPORTED ? OK : code;
}
Code nvmlShutdown(void) {
  unsigned long long ignored;
  Code code = number("nvmlShutdown", NULL, &ignored);
  return code == NOT_SUPPORTED ? OK : code;
}
const char *nvmlErrorString(Code code) { return code == INVALID_ARGUMENT ? "Invalid Argument" : "?"; }
Code nvmlSystemGetDriverVersion(char *version, unsigned length) {
  return text("nvmlSystemGetDriverVersion", NULL, version, length);
}
Code nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)gpu_count; return OK; }
Code nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
  if (index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
  *gpu = &gpus[index];
  return OK;
}
Code nvmlDeviceGetHandleByUUID(const char *uuid, Gpu **gpu) {
  for (int i = 0; i < gpu_count; i++)
    if (!strcmp(gpus[i].uuid, uuid)) { *gpu = &gpus[i]; return OK; }
  return NOT_FOUND;
}
Code nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) {
  snprintf(uuid, length, "%s", gpu->uuid);
  return OK;
}
Code nvmlDeviceGetName(Gpu *gpu, char *name, unsigned length) {
  snprintf(name, length, "%s", gpu->name);
  return OK;
}
Code nvmlDeviceGetIndex(Gpu *gpu, unsigned *index) { *index = (unsigned)gpu->number; return OK; }
Code nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Gpu *instance, Gpu **whole) {
  *whole = &gpus[0]; /* all instances are of the first GPU */
  return strncmp(instance->uuid, "MIG-", 4) ? INVALID_ARGUMENT : OK;
}
Code nvmlDeviceGetMigMode(Gpu *gpu, unsigned *now, unsigned *next) {
  *next = 0;
  return small("nvmlDeviceGetMigMode", gpu, now);
}
Code nvmlDeviceGetVirtualizationMode(Gpu *gpu, unsigned *mode) {
  return small("nvmlDeviceGetVirtualizationMode", gpu, mode);
}
Code nvmlDeviceGetPowerManagementLimit(Gpu *gpu, unsigned *mw) {
  return small("nvmlDeviceGetPowerManagementLimit", gpu, mw);
}
Code nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *mw) {
  return small("nvmlDeviceGetPowerUsage", gpu, mw);
}
Code nvmlDeviceGetTotalEnergyConsumption(Gpu *gpu, unsigned long long *mj) {
  return number("nvmlDeviceGetTotalEnergyConsumption", gpu, mj);
}
Code nvmlDeviceGetClockInfo(Gpu *gpu, unsigned kind, unsigned *mhz) {
  char symbol[64];
  snprintf(symbol, sizeof symbol, "nvmlDeviceGetClockInfo/%u", kind);
  return small(symbol, gpu, mhz);
}
Code nvmlDeviceGetTemperature(Gpu *gpu, unsigned sensor, unsigned *celsius) {
  (void)sensor;
  return small("nvmlDeviceGetTemperature", gpu, celsius);
}
Code nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *reasons) {
  return number("nvmlDeviceGetCurrentClocksThrottleReasons", gpu, reasons);
}
typedef struct { unsigned long long total, free, used; } Memory;
Code nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) { /* TOTAL,USED */
  char answer[LONG];
  Code code = next_answer("nvmlDeviceGetMemoryInfo", gpu, answer);
  if (code) return code;
  sscanf(answer, "%llu,%llu", &memory->total, &memory->used);
  memory->free = memory->total - memory->used;
  return OK;
}
Code nvmlDeviceGetSamples(Gpu *gpu, unsigned kind, unsigned long long seen_us, unsigned *type,
                          unsigned *count, Entry *found) {
  static char answer[LONG];
  unsigned long long period_us, value, stamp_us;
  unsigned there = 0;
  (void)kind;
  *type = 1; /* unsigned int */
  if (!found) {
    Code code = next_answer("nvmlDeviceGetSamples", gpu, answer);
    *count = KEPT;
    return code;
  }
  sscanf(answer, "@%llu,%llu", &period_us, &value);
  stamp_us = (unsigned long long)(now_s(CLOCK_REALTIME) * 1e6) / period_us * period_us;
  stamp_us -= (KEPT - 1) * period_us;
  for (int i = 0; i < KEPT; i++, stamp_us += period_us)
    if (stamp_us > seen_us && there < *count) {
      Entry entry = {stamp_us, value};
      found[there++] = entry;
    }
  *count = there;
  return there ? OK : NOT_FOUND;
}
Code nvmlDeviceGetComputeRunningProcesses_v2(Gpu *gpu, unsigned *count, Process *found) {
  return processes("nvmlDeviceGetComputeRunningProcesses", gpu, count, found);
}
Code nvmlDeviceGetGraphicsRunningProcesses_v2(Gpu *gpu, unsigned *count, Process *found) {
  return processes("nvmlDeviceGetGraphicsRunningProcesses", gpu, count, found);
}
#ifndef OLD_DRIVER /* what drivers before 510 lack */
Code nvmlDeviceGetCurrentClocksEventReasons(Gpu *gpu, unsigned long long *reasons) {
  return number("nvmlDeviceGetCurrentClocksEventReasons", gpu, reasons);
}
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;
Code nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory2 *memory) { /* TOTAL,USED */
  char answer[LONG];
  Code code = next_answer("nvmlDeviceGetMemoryInfo_v2", gpu, answer);
  if (code) return code;
  sscanf(answer, "%llu,%llu", &memory->total, &memory->used);
  memory->reserved = 0;
  memory->free = memory->total - memory->used;
  return OK;
}
Code nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, Process *found) {
  return processes("nvmlDeviceGetComputeRunningProcesses", gpu, count, found);
}
Code nvmlDeviceGetGraphicsRunningProcesses_v3(Gpu *gpu, unsigned *count, Process *found) {
  return processes("nvmlDeviceGetGraphicsRunningProcesses", gpu, count, found);
}
Code nvmlDeviceGetMPSComputeRunningProcesses_v3(Gpu *gpu, unsigned *count, Process *found) {
  return processes("nvmlDeviceGetMPSComputeRunningProcesses", gpu, count, found);
}
#endif
