// A choice of precision as it is kept between runs (docs/formats/precision_choice.md).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "ndpipe/cli/precision_choice.h"

namespace ndpipe::cli {

struct PrecisionRecord {
  std::string engine;  // the engine that was measured, with its version
  PrecisionChoice choice;
};

// Nothing when the file is absent or holds no record.
std::optional<PrecisionRecord> ReadPrecisionRecord(const std::filesystem::path& file);
Status WritePrecisionRecord(const std::filesystem::path& file, const PrecisionRecord& record);

}  // namespace ndpipe::cli
