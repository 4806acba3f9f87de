// What a model answers on a sample of photos, and how fast its engine is.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "ndpipe/cli/local_model.h"
#include "ndpipe/extract/extractor.h"

namespace ndpipe::cli {

// `count` of the numbers at most, evenly spread over them.
std::vector<int64_t> SpreadSample(std::span<const int64_t> numbers, int64_t count);

// The class of each photo that can be read, by its number. Leaves photos in the engine's requests.
Result<std::map<int64_t, int32_t>> ClassesOf(LocalModel& model, photo::PhotoSource& source,
                                             std::span<const int64_t> numbers,
                                             const extract::ExtractOptions& options);

// Share of the photos of `reference` that have the same class in `classes`.
double Agreement(const std::map<int64_t, int32_t>& classes,
                 const std::map<int64_t, int32_t>& reference);

// Photos a second of each engine alone: medians of rounds in which all take turns, so that other
// load on the machine meets all of them.
std::vector<double> EngineRates(std::span<engine::BodyEngine* const> bodies);

}  // namespace ndpipe::cli
