// --precision auto: the fastest precision whose answers are those of fp32, measured on the user's
// own photos.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"
#include "ndpipe/cli/local_model.h"
#include "ndpipe/cli/output.h"
#include "ndpipe/extract/extractor.h"
#include "ndpipe/photo/store.h"

namespace ndpipe::cli {

inline constexpr double kMinAgreement = 0.99;
// Of the photos given, this many are tried, evenly spread; with fewer than the least, no agreement
// could be told from chance and the measuring would take longer than the photos: fp32 it is.
inline constexpr int64_t kMaxSamplePhotos = 200;
inline constexpr int64_t kMinSamplePhotos = 32;

struct PrecisionCandidate {
  std::string precision;         // "fp32", "bf16", "int8"
  double images_per_second = 0;  // the engine alone, median of rounds that take turns
  double agreement = 0;          // share of the sample whose class is that of fp32
  std::string skipped;           // why it was not tried; empty: it was
};

struct PrecisionChoice {
  std::string precision;  // of the candidates
  std::string reason;
  int64_t num_photos = 0;   // of the sample, broken ones left out
  bool remembered = false;  // measured by an earlier run
  std::vector<PrecisionCandidate> candidates;
};

struct ChosenModel {
  LocalModel model;
  PrecisionChoice choice;
};

// The fastest of those tried that agree with fp32 on at least kMinAgreement of the sample.
// `candidates` begins with fp32.
std::string FastestThatAgrees(std::span<const PrecisionCandidate> candidates);

// Opens the model of `options` in the precision that is best for these photos; options.precision is
// not looked at. Tried are fp32, bf16 where the device has it, and int8 where the model's folder
// has a quantised variant (int8/model.onnx, as tools/quantize_backbone.py makes it). The choice is
// kept in the cache folder, by backbone, variant, device, CPU, threads and the sample's bytes, and
// is good for one version of the engine. numbers: of `source`. extract_options: how `source` is
// decoded. Errors of fp32 are returned; another precision that fails is left out with its reason.
// Blocks for seconds when there is no kept choice.
Result<ChosenModel> OpenBestModel(const LocalModelOptions& options, photo::PhotoSource& source,
                                  std::span<const int64_t> numbers,
                                  const extract::ExtractOptions& extract_options);

Json ToJson(const PrecisionChoice& choice);
void PrintPrecisionTable(const PrecisionChoice& choice);

}  // namespace ndpipe::cli
