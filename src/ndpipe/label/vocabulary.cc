#include "ndpipe/label/vocabulary.h"

#include "ndpipe/label/impl.h"

namespace ndpipe::label {

Result<std::optional<LabelId>> FindLabelId(sqlite::Database& db, const std::string& name) {
  return db.QueryInt("SELECT id FROM vocabulary WHERE name = ?1", name);
}

Result<LabelId> FindOrMakeLabelId(sqlite::Database& db, const std::string& name) {
  if (name.empty()) return Fail(ErrorCode::kInvalidArgument, "a label must have a name");
  if (name.size() > kMaxLabelBytes) {
    return Fail(ErrorCode::kInvalidArgument, "the label '" + name.substr(0, 40) + "…' has " +
                                                 std::to_string(name.size()) + " bytes; at most " +
                                                 std::to_string(kMaxLabelBytes) + " are allowed");
  }
  NDP_ASSIGN(const auto known, FindLabelId(db, name));
  if (known) return *known;
  NDP_RETURN_IF_ERROR(db.Run("INSERT INTO vocabulary(name) VALUES (?1)", name));
  return db.LastInsertRowid();
}

Result<std::vector<LabelId>> LabelDatabase::LabelIds(std::span<const std::string> names) {
  return impl_->Write([&](sqlite::Database& db) -> Result<std::vector<LabelId>> {
    std::vector<LabelId> ids;
    ids.reserve(names.size());
    for (const auto& name : names) {
      NDP_ASSIGN(const LabelId id, FindOrMakeLabelId(db, name));
      ids.push_back(id);
    }
    return ids;
  });
}

Result<std::optional<LabelId>> LabelDatabase::FindLabel(const std::string& name) {
  return impl_->Read([&](sqlite::Database& db) { return FindLabelId(db, name); });
}

Result<std::vector<std::string>> LabelDatabase::LabelNames(std::span<const LabelId> ids) {
  return impl_->Read([&](sqlite::Database& db) -> Result<std::vector<std::string>> {
    std::vector<std::string> names;
    names.reserve(ids.size());
    for (const LabelId id : ids) {
      const size_t before = names.size();
      NDP_RETURN_IF_ERROR(db.Query(
          "SELECT name FROM vocabulary WHERE id = ?1",
          [&](const sqlite::Statement& row) { names.push_back(row.Text(0)); }, id));
      if (names.size() == before) {
        return Fail(ErrorCode::kNotFound,
                    "the vocabulary has no label with id " + std::to_string(id));
      }
    }
    return names;
  });
}

}  // namespace ndpipe::label
