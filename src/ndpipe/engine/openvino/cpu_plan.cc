#include "ndpipe/engine/openvino/cpu_plan.h"

#include <sched.h>

#include <algorithm>
#include <thread>

namespace ndpipe::engine {
namespace {

int UsableCores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

CpuPlan PlanCpu(int num_threads) {
  CpuPlan plan;
  plan.num_threads = num_threads > 0 ? num_threads : UsableCores();
  plan.num_streams = plan.num_threads;
  return plan;
}

}  // namespace ndpipe::engine
