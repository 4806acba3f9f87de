// How the engine's threads are spread over streams.
#pragma once

namespace ndpipe::engine {

struct CpuPlan {
  int num_threads = 1;
  int num_streams = 1;  // divides num_threads: streams of equal size compute equal bits
};

// num_threads 0: all cores that the process may use.
CpuPlan PlanCpu(int num_threads);

}  // namespace ndpipe::engine
