#include "ndpipe/engine/openvino/cpu_plan.h"

#include "ndpipe/base/machine.h"

namespace ndpipe::engine {
CpuPlan PlanCpu(int num_threads) {
  CpuPlan plan;
  plan.num_threads = num_threads > 0 ? num_threads : UsableCores();
  plan.num_streams = plan.num_threads;
  return plan;
}

}  // namespace ndpipe::engine
