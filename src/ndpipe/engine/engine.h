// Engines run the body of a backbone on a device, and tails on its features.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/model/backbone.h"

namespace ndpipe::engine {

// What a request's input holds for each photo.
enum class InputForm {
  kPixels,  // uint8 [height, width, 3], RGB; normalised by the engine
  kTensor,  // float32 [3, height, width]: the network's own input, normalised already
};

struct BodyOptions {
  std::string device = "cpu";  // "cpu"; "cuda:N" where it is built in
  std::string cut;             // tensor name; empty: the backbone's default cut
  model::Precision precision = model::Precision::kFp32;
  InputForm input_form = InputForm::kPixels;
  int num_threads = 0;  // 0: all cores that the process may use
  // Compiled models, and what was measured to choose between them, are kept here. Empty: nothing is
  // kept or measured, and a request has one photo.
  std::filesystem::path cache_folder;
};

// A body: photos in, fp16 features out. Several requests are in flight at once.
//
// A caller takes a free Request, lets decoders write photos straight into its input, and submits
// it. Results do not depend on which photos share a request or on its fill: each photo's features
// are a function of its own pixels. Thread-safe, but each Request is used by one thread at a time.
class BodyEngine {
 public:
  // Owned by the engine, free again when its callback has returned.
  class Request {
   public:
    virtual ~Request() = default;
    // The bytes of [batch_size] photos in the engine's InputForm. Valid until Submit.
    virtual std::span<uint8_t> input() = 0;
  };
  // features: fp16 [num_photos, feature_size], valid during the call. On an engine thread; must not
  // block for long.
  using Callback = std::function<void(Status status, std::span<const Half> features)>;

  virtual ~BodyEngine() = default;  // waits for requests in flight

  virtual int batch_size() const = 0;    // photos a request
  virtual int num_requests() const = 0;  // that may be in flight for the best rate
  virtual int64_t feature_size()
      const = 0;  // elements a photo at the cut: the product of its dimensions but the first
  virtual std::string description()
      const = 0;  // "OpenVINO 2026.4.1 cpu fp32, 2 streams": for logs and reports

  // What it reached alone when it was prepared; 0: not measured.
  virtual double images_per_second() const { return 0; }

  virtual Request* Acquire() = 0;  // blocks until one is free
  virtual void Submit(Request* request, int num_photos,
                      Callback done) = 0;      // 1 … batch_size; the rest is ignored
  virtual void Release(Request* request) = 0;  // gives an acquired one back unused
  virtual void Drain() = 0;                    // blocks until all submitted callbacks have returned
};

// kNotFound: no such tensor; kInvalidArgument: the cut is no single-tensor edge; kUnavailable: the
// device is missing or not built in (never a silent fall-back); kFailedPrecondition: the model's
// input does not fit the manifest.
Result<std::unique_ptr<BodyEngine>> CreateBodyEngine(const model::Backbone& backbone,
                                                     const BodyOptions& options);

// The dimensions of one photo's features at a cut, without the number of photos; their product is
// the feature size. cut empty: the default cut. Nothing is run: it takes as long as reading the
// graph. kNotFound: no such tensor (the message names like ones); kInvalidArgument: the tensor is
// no cut for tails (the message names those around it): no single-tensor edge, behind the default
// cut, or no floating-point numbers of a fixed size a photo; kUnavailable: built without OpenVINO.
Result<std::vector<int64_t>> CutDims(const model::Backbone& backbone, const std::string& cut);

struct Top1 {
  int32_t class_index = 0;
  float confidence = 0;  // softmax probability
};

// A tail ready to run. Thread-safe.
class TailEngine {
 public:
  virtual ~TailEngine() = default;
  // features: fp16 [n, elements at the cut]; top1: n. Equal features give equal results whatever n
  // is. Memory does not grow with n. Blocks. kInvalidArgument: sizes that do not fit, features or
  // scores that are not finite.
  virtual Status Classify(std::span<const Half> features, std::span<Top1> top1) = 0;
};

// A tail of any cut. At the default cut it is linear and runs in the callers' threads; a deep one
// runs the backbone's nodes from its cut on, in fp32, on num_threads of its own (0: all cores that
// the process may use), which all callers share. kFailedPrecondition: the tail is of another
// backbone; kInvalidArgument: it does not fit the backbone's graph; kUnavailable: a deep tail in a
// program without OpenVINO.
Result<std::unique_ptr<TailEngine>> CreateTailEngine(const model::Backbone& backbone,
                                                     const model::TailWeights& tail,
                                                     int num_threads = 0);
// For a linear tail, whose backbone is not needed. kInvalidArgument: it has parameters.
Result<std::unique_ptr<TailEngine>> CreateTailEngine(const model::TailWeights& tail);

}  // namespace ndpipe::engine
