#include "ndpipe/engine/openvino/openvino_tail.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <limits>
#include <mutex>
#include <openvino/core/preprocess/pre_post_process.hpp>
#include <openvino/openvino.hpp>
#include <openvino/runtime/properties.hpp>
#include <span>
#include <utility>
#include <vector>

#include "ndpipe/engine/aligned_floats.h"
#include "ndpipe/engine/half_convert.h"
#include "ndpipe/engine/linear_kernel.h"
#include "ndpipe/engine/openvino/cpu_plan.h"
#include "ndpipe/engine/openvino/read_graph.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/tail_graph.h"

namespace ndpipe::engine {
namespace {

// A call of Classify that waits for its photos. Guarded by the engine's mutex.
struct WaitingCall {
  size_t num_in_flight = 0;
  size_t failed_photo = std::numeric_limits<size_t>::max();  // the first of them
  Error error;

  void Record(size_t photo, Error reason) {
    if (photo >= failed_photo) return;
    failed_photo = photo;
    error = std::move(reason);
  }
};

// One photo on its way through the graph.
struct TailRequest {
  explicit TailRequest(int64_t num_logits) : logits(num_logits) {}

  ov::InferRequest infer;
  std::span<float> input;         // [elements at the cut]: the request's own tensor
  std::span<const float> output;  // [num_classes]
  AlignedFloats logits;           // the same, filled up to whole panels
  WaitingCall* call = nullptr;
  size_t photo = 0;
  Top1* top1 = nullptr;
};

// Each photo is a request by itself, and all streams compute alike, so that a photo's bits depend
// on nothing but its features. `mutex_` guards the free list and the calls that wait; OpenVINO is
// never called under it.
class OpenVinoTail : public TailEngine {
 public:
  OpenVinoTail(ov::CompiledModel compiled, int num_requests)
      : compiled_(std::move(compiled)),
        feature_size_(static_cast<int64_t>(ov::shape_size(compiled_.input().get_shape()))),
        num_logits_((static_cast<int64_t>(ov::shape_size(compiled_.output().get_shape())) +
                     kPanelClasses - 1) /
                    kPanelClasses * kPanelClasses),
        no_bias_(num_logits_) {
    for (int i = 0; i < num_requests; ++i) {
      requests_.push_back(MakeRequest());
      free_.push_back(requests_.back().get());
    }
  }

  Status Classify(std::span<const Half> features, std::span<Top1> top1) override {
    if (features.size() != top1.size() * static_cast<size_t>(feature_size_)) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} features for {} photos; the tail takes {} a photo",
                              features.size(), top1.size(), feature_size_));
    }
    WaitingCall call;
    const auto size = static_cast<size_t>(feature_size_);
    for (size_t photo = 0; photo < top1.size(); ++photo) {
      TailRequest* request = Acquire(call);
      if (request == nullptr) break;
      request->photo = photo;
      request->top1 = &top1[photo];
      ConvertToFloat(features.subspan(photo * size, size), request->input);
      if (AllFinite(request->input)) {
        Start(*request);
      } else {
        Finish(*request, NotFinite(photo));
      }
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return call.num_in_flight == 0; });
    if (call.failed_photo != std::numeric_limits<size_t>::max()) {
      return std::unexpected(std::move(call.error));
    }
    return {};
  }

 private:
  std::unique_ptr<TailRequest> MakeRequest() {
    auto request = std::make_unique<TailRequest>(num_logits_);
    request->infer = compiled_.create_infer_request();
    ov::Tensor input = request->infer.get_input_tensor();
    request->input = {input.data<float>(), input.get_size()};
    const ov::Tensor output = request->infer.get_output_tensor();
    request->output = {output.data<const float>(), output.get_size()};
    return request;
  }

  // Null once a photo of the call has failed: the rest is not tried.
  TailRequest* Acquire(WaitingCall& call) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !free_.empty(); });
    if (call.failed_photo != std::numeric_limits<size_t>::max()) return nullptr;
    TailRequest* request = free_.front();
    free_.pop_front();
    request->call = &call;
    ++call.num_in_flight;
    return request;
  }

  void Start(TailRequest& request) {
    try {
      // Set anew each time, as OpenVinoBody does and for its reason.
      request.infer.set_callback([this, &request](std::exception_ptr failure) {
        Finish(request, failure ? Failure(failure) : Choose(request));
      });
      request.infer.start_async();
    } catch (const std::exception& error) {
      Finish(request, Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what())));
    }
  }

  static Status Failure(const std::exception_ptr& failure) {
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      return Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what()));
    } catch (...) {
      return Fail(ErrorCode::kInternal, "OpenVINO: inference failed for an unknown reason");
    }
  }

  Status Choose(TailRequest& request) const {
    // The classes that fill up the last panel never win.
    std::fill_n(request.logits.get(), num_logits_, std::numeric_limits<float>::lowest());
    std::ranges::copy(request.output, request.logits.get());
    const Scored scored = kernel_.score(request.logits.get(), no_bias_.get(), num_logits_);
    if (!scored.finite) {
      return Fail(
          ErrorCode::kInvalidArgument,
          fmt::format("the tail's scores of photo {} of the batch overflow", request.photo));
    }
    *request.top1 = {.class_index = static_cast<int32_t>(scored.largest),
                     .confidence = 1.0F / scored.exp_sum};
    return {};
  }

  static std::unexpected<Error> NotFinite(size_t photo) {
    return Fail(ErrorCode::kInvalidArgument,
                fmt::format("the features of photo {} of the batch are not finite numbers; extract "
                            "them again",
                            photo));
  }

  void Finish(TailRequest& request, Status status) {
    std::lock_guard lock(mutex_);
    WaitingCall& call = *std::exchange(request.call, nullptr);
    if (!status) call.Record(request.photo, std::move(status).error());
    --call.num_in_flight;
    free_.push_back(&request);
    changed_.notify_all();  // under the lock: a call that waits must not run away with it
  }

  ov::CompiledModel compiled_;
  const int64_t feature_size_;
  const int64_t num_logits_;
  const LinearKernel& kernel_ = BestLinearKernel();
  const AlignedFloats no_bias_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<TailRequest*> free_;  // guarded by mutex_

  std::vector<std::unique_ptr<TailRequest>> requests_;  // dies first: waits for its inference
};

// What TailGraph needs: the shapes for one photo of the cut and of what the tail reads sizes of.
Result<model::Shapes> ShapesFor(ov::Core& core, const model::Backbone& backbone,
                                const model::Graph& graph, const std::string& cut) {
  NDP_ASSIGN(const auto part, model::FindTailPart(graph, cut, backbone.cut));
  std::vector<std::string> tensors = part.sizes_of;
  tensors.push_back(cut);
  NDP_ASSIGN(const auto beginning, ReadUpTo(core, backbone, tensors));
  NDP_ASSIGN(const auto inferred, InferShapes(beginning, 1));
  model::Shapes shapes;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (inferred[i].type == model::DataType::kUndefined) {
      return Fail(ErrorCode::kInvalidArgument,
                  fmt::format("the tensor \"{}\" has no fixed size a photo", tensors[i]));
    }
    shapes[tensors[i]] = inferred[i];
  }
  return shapes;
}

Result<std::shared_ptr<ov::Model>> ReadTail(ov::Core& core, const model::Backbone& backbone,
                                            const model::TailWeights& tail) {
  NDP_ASSIGN(const auto graph, model::ReadKeptGraph(backbone.onnx_file));
  NDP_ASSIGN(const auto shapes, ShapesFor(core, backbone, graph, tail.cut));
  NDP_ASSIGN(const auto tail_graph, model::TailGraph(graph, tail, shapes));
  NDP_ASSIGN(const auto converted, ReadGraph(core, tail_graph));
  ov::preprocess::PrePostProcessor steps(converted);
  steps.input().tensor().set_element_type(ov::element::f32);
  steps.output().tensor().set_element_type(ov::element::f32);
  return steps.build();
}

}  // namespace

Result<std::unique_ptr<TailEngine>> CreateOpenVinoTail(const model::Backbone& backbone,
                                                       const model::TailWeights& tail,
                                                       int num_threads) {
  try {
    ov::Core core;
    NDP_ASSIGN(const auto graph, ReadTail(core, backbone, tail));
    const CpuPlan plan = PlanCpu(num_threads);
    auto compiled = core.compile_model(
        graph, "CPU", ov::hint::performance_mode(ov::hint::PerformanceMode::THROUGHPUT),
        ov::hint::inference_precision(ov::element::f32),
        ov::hint::execution_mode(ov::hint::ExecutionMode::PERFORMANCE),
        ov::inference_num_threads(plan.num_threads),
        ov::num_streams(ov::streams::Num(plan.num_streams)));
    // A stream finds its next photo waiting when it ends one.
    return std::make_unique<OpenVinoTail>(std::move(compiled), 2 * plan.num_streams);
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("backbone {}: OpenVINO cannot run the tail from cut \"{}\": {}",
                            backbone.manifest.name, tail.cut, error.what()));
  }
}

}  // namespace ndpipe::engine
