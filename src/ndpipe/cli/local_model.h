// A model that is run on this machine without a Tuner: for infer, compile and the benchmarks.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ndpipe/base/result.h"
#include "ndpipe/engine/engine.h"
#include "ndpipe/model/backbone.h"

namespace ndpipe::cli {

struct LocalModel {
  model::Backbone backbone;
  model::Precision precision = model::Precision::kFp32;  // what the engine was asked for
  model::TailWeights own_tail;
  std::unique_ptr<engine::BodyEngine> body;
  std::unique_ptr<engine::TailEngine> tail;
};

struct LocalModelOptions {
  std::string model;  // as ResolveModel takes it
  std::string device = "cpu";
  std::string precision = "fp32";  // "fp32", "bf16", "int8"
  int num_threads = 0;
  engine::InputForm input_form = engine::InputForm::kPixels;
};

// Imports the model into the user's cache folder. For int8 that is its quantised variant,
// int8/model.onnx in the model's folder, which is a backbone of its own; kNotFound when there is
// none, as ResolveModel when there is no model.
Result<model::Backbone> ImportLocalModel(const LocalModelOptions& options);

// Imports the model, or takes it as imported, and compiles it for the device; the plan is kept in
// the cache folder, so that the next time is quicker. The parts of an int8 model that are not
// quantised run in fp32.
Result<LocalModel> OpenLocalModel(const LocalModelOptions& options);
Result<LocalModel> OpenLocalModel(const LocalModelOptions& options, model::Backbone backbone);

// $XDG_CACHE_HOME/ndpipe, else ~/.cache/ndpipe, else a folder of this user's under the temporary
// one. Created.
Result<std::filesystem::path> CacheFolder();

}  // namespace ndpipe::cli
