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
  model::TailWeights own_tail;
  std::unique_ptr<engine::BodyEngine> body;
  std::unique_ptr<engine::TailEngine> tail;
};

struct LocalModelOptions {
  std::string model;  // as ResolveModel takes it
  std::string device = "cpu";
  std::string precision = "fp32";
  int num_threads = 0;
  engine::InputForm input_form = engine::InputForm::kPixels;
};

// Imports the model into the user's cache folder and compiles it for the device; the plan is kept
// there, so that the next time is quicker.
Result<LocalModel> OpenLocalModel(const LocalModelOptions& options);

// $XDG_CACHE_HOME/ndpipe, else ~/.cache/ndpipe, else a folder of this user's under the temporary
// one. Created.
Result<std::filesystem::path> CacheFolder();

}  // namespace ndpipe::cli
