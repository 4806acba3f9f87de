#include "openvino_peer.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <openvino/openvino.hpp>
#include <vector>

#include "ndpipe/base/clock.h"
#include "ndpipe/engine/openvino/body_graph.h"

namespace ndpipe::bench {
namespace {

double Rate(ov::CompiledModel& compiled, double seconds) {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<size_t> free;
  const size_t num_requests = compiled.get_property(ov::optimal_number_of_infer_requests);
  std::vector<ov::InferRequest> requests;
  for (size_t i = 0; i < num_requests; ++i) {
    requests.push_back(compiled.create_infer_request());
    free.push_back(i);
  }
  const auto give_back = [&](size_t request) {
    std::lock_guard lock(mutex);
    free.push_back(request);
    changed.notify_all();
  };
  const Stopwatch watch;
  int64_t num_photos = 0;
  while (watch.Seconds() < seconds) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !free.empty(); });
    const size_t request = free.front();
    free.pop_front();
    lock.unlock();
    requests[request].set_callback([&, request](std::exception_ptr) { give_back(request); });
    requests[request].start_async();
    ++num_photos;
  }
  for (auto& request : requests) request.wait();
  return num_photos / watch.Seconds();
}

}  // namespace

double OpenVinoRate(const model::Backbone& backbone, model::Precision precision, double seconds) {
  try {
    ov::Core core;
    const auto graph = engine::BuildBodyGraph(core, backbone, backbone.cut, 1);
    if (!graph) return 0;
    auto compiled = core.compile_model(
        *graph, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::THROUGHPUT),
        ov::hint::inference_precision(precision == model::Precision::kBf16 ? ov::element::bf16
                                                                           : ov::element::f32));
    return Rate(compiled, seconds);
  } catch (const std::exception&) {
    return 0;
  }
}

}  // namespace ndpipe::bench
