// Names to label ids inside a transaction of the label database.
#pragma once

#include <optional>
#include <string>

#include "ndpipe/base/sqlite.h"
#include "ndpipe/label/label_database.h"

namespace ndpipe::label {

Result<std::optional<LabelId>> FindLabelId(sqlite::Database& db, const std::string& name);
// Makes it when it is unknown. kInvalidArgument for an empty name or one beyond kMaxLabelBytes.
Result<LabelId> FindOrMakeLabelId(sqlite::Database& db, const std::string& name);

}  // namespace ndpipe::label
