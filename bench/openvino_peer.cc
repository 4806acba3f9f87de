#include "openvino_peer.h"

#include <fmt/format.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <openvino/openvino.hpp>
#include <openvino/opsets/opset8.hpp>

#include "ndpipe/base/machine.h"
#include "ndpipe/engine/openvino/body_graph.h"

namespace ndpipe::bench {
namespace {

constexpr double kWarmUpSeconds = 0.3;

// Keeps as many requests in flight as OpenVINO calls optimal.
class AsyncLoop {
 public:
  AsyncLoop(ov::CompiledModel compiled, int64_t photos_a_request)
      : compiled_(std::move(compiled)), photos_a_request_(photos_a_request) {
    const size_t num_requests = compiled_.get_property(ov::optimal_number_of_infer_requests);
    for (size_t i = 0; i < num_requests; ++i) {
      requests_.push_back(compiled_.create_infer_request());
      auto input = requests_.back().get_input_tensor();
      std::memset(input.data(), 0, input.get_byte_size());
    }
  }

  Rate Measure(double seconds) {
    for (size_t i = 0; i < requests_.size(); ++i) free_.push_back(i);
    const RateMeter watch;
    int64_t num_photos = 0;
    while (watch.Seconds() < seconds) {
      const size_t request = TakeFree();
      requests_[request].set_callback([this, request](const std::exception_ptr&) {
        std::lock_guard lock(mutex_);
        free_.push_back(request);
        changed_.notify_all();
      });
      requests_[request].start_async();
      num_photos += photos_a_request_;
    }
    for (auto& request : requests_) request.wait();
    const Rate rate = watch.Of(num_photos);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return free_.size() == requests_.size(); });
    free_.clear();
    return rate;
  }

 private:
  size_t TakeFree() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !free_.empty(); });
    const size_t request = free_.front();
    free_.pop_front();
    return request;
  }

  ov::CompiledModel compiled_;
  const int64_t photos_a_request_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<size_t> free_;  // guarded by mutex_
  std::vector<ov::InferRequest> requests_;
};

Peer MakePeer(std::string name, bool by_hints, ov::CompiledModel compiled, int64_t photos) {
  auto loop = std::make_shared<AsyncLoop>(std::move(compiled), photos);
  loop->Measure(kWarmUpSeconds);
  return {std::move(name), by_hints, [loop](double seconds) { return loop->Measure(seconds); }};
}

}  // namespace

Result<std::vector<Peer>> MakeOpenVinoPeers(const model::Backbone& backbone,
                                            model::Precision precision) {
  try {
    ov::Core core;
    std::vector<Peer> peers;
    for (const bool by_hints : {true, false}) {
      for (const int64_t photos : {1, 2, 4, 8}) {
        NDP_ASSIGN(const auto graph, engine::BuildBodyGraph(core, backbone, backbone.cut,
                                                            engine::InputForm::kPixels, photos));
        ov::AnyMap properties{
            ov::hint::performance_mode(ov::hint::PerformanceMode::THROUGHPUT),
            ov::hint::inference_precision(precision == model::Precision::kBf16 ? ov::element::bf16
                                                                               : ov::element::f32)};
        if (!by_hints) {
          properties.insert(ov::inference_num_threads(UsableCores()));
          properties.insert(ov::num_streams(ov::streams::Num(UsableCores())));
        }
        auto compiled = core.compile_model(graph, "CPU", properties);
        const int num_streams = compiled.get_property(ov::num_streams).num;
        auto name = fmt::format("{}, {} photos a request, {} streams",
                                by_hints ? "hints" : "a stream a core", photos, num_streams);
        peers.push_back(MakePeer(std::move(name), by_hints, std::move(compiled), photos));
      }
    }
    return peers;
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what()));
  }
}

Result<Peer> MakeMatMulPeer(const model::TailWeights& weights, size_t rows) {
  try {
    const auto features = static_cast<size_t>(weights.feature_size);
    const auto classes = static_cast<size_t>(weights.num_classes);
    const auto input = std::make_shared<ov::opset8::Parameter>(
        ov::element::f32, ov::PartialShape{static_cast<int64_t>(rows), weights.feature_size});
    const auto matrix = std::make_shared<ov::opset8::Constant>(
        ov::element::f32, ov::Shape{classes, features}, weights.weight);
    const auto product = std::make_shared<ov::opset8::MatMul>(input, matrix, false, true);
    const auto graph =
        std::make_shared<ov::Model>(ov::OutputVector{product}, ov::ParameterVector{input});
    ov::Core core;
    auto compiled = core.compile_model(graph, "CPU", ov::inference_num_threads(1),
                                       ov::num_streams(ov::streams::Num(1)),
                                       ov::hint::inference_precision(ov::element::f32));
    return MakePeer("OpenVINO MatMul", false, std::move(compiled), static_cast<int64_t>(rows));
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what()));
  }
}

}  // namespace ndpipe::bench
