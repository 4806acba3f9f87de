#include "ndpipe/engine/openvino/openvino_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <openvino/openvino.hpp>
#include <openvino/runtime/properties.hpp>
#include <thread>
#include <vector>

#include "ndpipe/base/hash.h"
#include "ndpipe/base/log.h"
#include "ndpipe/engine/batch_choice.h"
#include "ndpipe/engine/half_convert.h"
#include "ndpipe/engine/openvino/body_graph.h"
#include "ndpipe/engine/openvino/cpu_plan.h"

namespace ndpipe::engine {
namespace {

const std::string kVersion =
    fmt::format("{}.{}.{}", OPENVINO_VERSION_MAJOR, OPENVINO_VERSION_MINOR, OPENVINO_VERSION_PATCH);

// A stream finds its next photo waiting when it ends one, and each core has a request to decode
// into meanwhile: a request costs no more than its pixels.
int NumRequests(int num_streams, int num_threads) { return 2 * num_streams + num_threads; }

class OpenVinoBody;

struct OpenVinoRequest : BodyEngine::Request {
  std::span<uint8_t> input() override { return bytes; }

  ov::InferRequest infer;
  std::span<uint8_t> bytes;       // the request's own input tensor: decoders write into it directly
  std::span<const float> output;  // [batch_size, feature_size]
  std::vector<Half> features;     // [batch_size, feature_size]
  int num_photos = 0;
  BodyEngine::Callback done;
};

// Owns the compiled model and its requests. `mutex_` guards the free list and the count in flight;
// OpenVINO is never called under it.
class OpenVinoBody : public BodyEngine {
 public:
  OpenVinoBody(ov::CompiledModel compiled, int num_requests, std::string description,
               double images_per_second)
      : compiled_(std::move(compiled)),
        description_(std::move(description)),
        images_per_second_(images_per_second) {
    const auto shape = compiled_.output().get_shape();
    batch_size_ = static_cast<int>(shape[0]);
    feature_size_ = static_cast<int64_t>(ov::shape_size(shape) / shape[0]);
    for (int i = 0; i < num_requests; ++i) {
      requests_.push_back(MakeRequest());
      free_.push_back(requests_.back().get());
    }
  }

  ~OpenVinoBody() override { Drain(); }

  int batch_size() const override { return batch_size_; }
  int num_requests() const override { return static_cast<int>(requests_.size()); }
  int64_t feature_size() const override { return feature_size_; }
  std::string description() const override { return description_; }
  double images_per_second() const override { return images_per_second_; }

  Request* Acquire() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !free_.empty(); });
    auto* request = free_.front();
    free_.pop_front();
    return request;
  }

  void Release(Request* request) override {
    std::lock_guard lock(mutex_);
    free_.push_back(static_cast<OpenVinoRequest*>(request));
    changed_.notify_all();
  }

  void Submit(Request* request, int num_photos, Callback done) override {
    NDP_CHECK(num_photos >= 1 && num_photos <= batch_size_);
    auto* mine = static_cast<OpenVinoRequest*>(request);
    mine->num_photos = num_photos;
    mine->done = std::move(done);
    {
      std::lock_guard lock(mutex_);
      ++num_in_flight_;
    }
    try {
      // Set anew each time: while a callback runs, OpenVINO holds it aside, and a request that is
      // started again before it is put back would end without one.
      mine->infer.set_callback(
          [this, mine](std::exception_ptr failure) { Finish(*mine, StatusOf(failure)); });
      mine->infer.start_async();
    } catch (const std::exception& error) {
      Finish(*mine, Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what())));
    }
  }

  void Drain() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_in_flight_ == 0; });
  }

 private:
  std::unique_ptr<OpenVinoRequest> MakeRequest() {
    auto request = std::make_unique<OpenVinoRequest>();
    request->infer = compiled_.create_infer_request();
    ov::Tensor input = request->infer.get_input_tensor();
    std::memset(input.data(), 0, input.get_byte_size());
    request->bytes = {static_cast<uint8_t*>(input.data()), input.get_byte_size()};
    const ov::Tensor output = request->infer.get_output_tensor();
    request->output = {output.data<const float>(), output.get_size()};
    request->features.resize(output.get_size());
    return request;
  }

  static Status StatusOf(const std::exception_ptr& failure) {
    if (!failure) return {};
    try {
      std::rethrow_exception(failure);
    } catch (const std::exception& error) {
      return Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what()));
    } catch (...) {
      return Fail(ErrorCode::kInternal, "OpenVINO: inference failed for an unknown reason");
    }
  }

  void Finish(OpenVinoRequest& request, Status status) {
    const size_t count = static_cast<size_t>(request.num_photos * feature_size_);
    const auto features = std::span(request.features).first(count);
    if (status) ConvertToHalf(request.output.first(count), features);
    const Callback done = std::exchange(request.done, nullptr);
    done(std::move(status), features);
    std::lock_guard lock(mutex_);
    --num_in_flight_;
    free_.push_back(&request);
    changed_.notify_all();  // under the lock: a destructor that waits must not run away with it
  }

  ov::CompiledModel compiled_;
  const std::string description_;
  const double images_per_second_;
  int batch_size_ = 0;
  int64_t feature_size_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<OpenVinoRequest*> free_;  // guarded by mutex_
  int num_in_flight_ = 0;              // guarded by mutex_

  std::vector<std::unique_ptr<OpenVinoRequest>> requests_;  // dies first: waits for its inference
};

ov::AnyMap Properties(const BodyOptions& options, const CpuPlan& plan) {
  ov::AnyMap properties{
      ov::hint::performance_mode(ov::hint::PerformanceMode::THROUGHPUT),
      ov::hint::inference_precision(
          options.precision == model::Precision::kBf16 ? ov::element::bf16 : ov::element::f32),
      ov::hint::execution_mode(ov::hint::ExecutionMode::PERFORMANCE),
      ov::inference_num_threads(plan.num_threads),
      ov::num_streams(ov::streams::Num(plan.num_streams)),
  };
  if (!options.cache_folder.empty()) {
    properties.insert(ov::cache_dir(options.cache_folder.string()));
  }
  return properties;
}

// bf16 without the instructions for it would run as something else: said, not hidden.
Status CheckPrecision(ov::Core& core, const BodyOptions& options) {
  if (options.precision != model::Precision::kBf16) return {};
  const auto able = core.get_property("CPU", ov::device::capabilities);
  if (std::ranges::find(able, ov::device::capability::BF16) != able.end()) return {};
  return Fail(ErrorCode::kUnavailable,
              "precision bf16: this CPU has no bf16 instructions; use fp32");
}

Result<std::unique_ptr<BodyEngine>> MakeBodyOf(ov::Core& core, const model::Backbone& backbone,
                                               const BodyOptions& options,
                                               const BatchChoice& choice) {
  const std::string cut = options.cut.empty() ? backbone.cut : options.cut;
  const CpuPlan plan = PlanCpu(options.num_threads);
  try {
    NDP_ASSIGN(const auto graph,
               BuildBodyGraph(core, backbone, cut, options.input_form, choice.batch_size));
    auto compiled = core.compile_model(graph, "CPU", Properties(options, plan));
    const int num_streams = compiled.get_property(ov::num_streams).num;
    auto description =
        fmt::format("OpenVINO {} cpu {}, {} threads in {} streams, {} photo{} a request", kVersion,
                    model::PrecisionName(options.precision), plan.num_threads, num_streams,
                    choice.batch_size, choice.batch_size == 1 ? "" : "s");
    return std::make_unique<OpenVinoBody>(std::move(compiled),
                                          NumRequests(num_streams, plan.num_threads),
                                          std::move(description), choice.images_per_second);
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kFailedPrecondition,
                fmt::format("backbone {} ({}): OpenVINO cannot run it: {}", backbone.manifest.name,
                            backbone.onnx_file.string(), error.what()));
  }
}

// By all that the rate of a request's size depends on.
std::filesystem::path ChoiceFile(ov::Core& core, const model::Backbone& backbone,
                                 const BodyOptions& options) {
  const auto key = fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n{}", backbone.hash.Hex(),
                               options.cut.empty() ? backbone.cut : options.cut,
                               model::PrecisionName(options.precision),
                               options.input_form == InputForm::kPixels ? "pixels" : "tensor",
                               PlanCpu(options.num_threads).num_threads, kVersion,
                               core.get_property("CPU", ov::device::full_name));
  return options.cache_folder / fmt::format("batch-{}.txt", Sha256::Of(key).Hex().substr(0, 32));
}

// What was measured before, or is now. Without a folder to keep it in, nothing is measured.
Result<BatchChoice> FindChoice(ov::Core& core, const model::Backbone& backbone,
                               const BodyOptions& options) {
  if (options.cache_folder.empty()) return BatchChoice{};
  const auto file = ChoiceFile(core, backbone, options);
  if (const auto kept = ReadBatchChoice(file)) return *kept;
  const auto make = [&](int batch_size) {
    return MakeBodyOf(core, backbone, options, {.batch_size = batch_size});
  };
  NDP_ASSIGN(const auto choice, ChooseBatch(make, options.input_form));
  if (const auto kept = WriteBatchChoice(file, choice); !kept) {
    spdlog::warn("the engine's measured plan could not be kept: {}", kept.error().message);
  }
  return choice;
}

}  // namespace

Result<std::unique_ptr<BodyEngine>> CreateOpenVinoBody(const model::Backbone& backbone,
                                                       const BodyOptions& options) {
  try {
    ov::Core core;
    NDP_RETURN_IF_ERROR(CheckPrecision(core, options));
    NDP_ASSIGN(const auto choice, FindChoice(core, backbone, options));
    return MakeBodyOf(core, backbone, options, choice);
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kInternal, fmt::format("OpenVINO: {}", error.what()));
  }
}

}  // namespace ndpipe::engine
