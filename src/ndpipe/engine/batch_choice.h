// How many photos a request of a body has: found by measuring at first use, and kept.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "ndpipe/engine/engine.h"

namespace ndpipe::engine {

struct BatchChoice {
  int batch_size = 1;
  double images_per_second = 0;  // when it was measured

  bool operator==(const BatchChoice&) const = default;
};

// The sizes that are tried, one after the other, while they gain. 8 was slower than the best
// wherever it was measured (docs/decisions/0004), and a size costs seconds of the first use.
inline constexpr int kBatchSizes[] = {1, 2, 4};

// Makes the body with that many photos a request.
using MakeBody = std::function<Result<std::unique_ptr<BodyEngine>>(int batch_size)>;

// The fastest of kBatchSizes whose features are, bit for bit, those of one photo a request: so the
// choice, which differs between machines and moments, never shows in a result. One photo a request
// wins unless another gains at least 2 %. Blocks for some seconds; errors are those of `make` and
// of the engine.
Result<BatchChoice> ChooseBatch(const MakeBody& make, InputForm input_form);

// A choice as a file of its own (docs/formats/batch_choice.md). Nothing when the file is absent or
// holds no choice.
std::optional<BatchChoice> ReadBatchChoice(const std::filesystem::path& file);
Status WriteBatchChoice(const std::filesystem::path& file, const BatchChoice& choice);

}  // namespace ndpipe::engine
