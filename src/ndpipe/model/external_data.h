// Weights that lie beside an ONNX file: opened so that a hostile model cannot reach anything else.
#pragma once

#include <filesystem>

#include "ndpipe/base/result.h"
#include "ndpipe/model/onnx.h"

namespace ndpipe::model {

// Resolves references to regular files inside `folder`, the model's own: a relative path without
// "..", no symbolic link at any step, the range inside the file. Files are mapped once and shared.
// The resolver is used by one thread. Its errors: kInvalidArgument for a reference that breaks
// these rules, kNotFound, kPermissionDenied.
ExternalResolver MakeExternalResolver(const std::filesystem::path& folder);

}  // namespace ndpipe::model
