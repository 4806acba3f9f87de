#include "ndpipe/photo/derived/derived_reader.h"

#include <utility>

namespace ndpipe::photo {

DerivedReader::DerivedReader(const std::filesystem::path& folder, DerivedIndex index)
    : files_(folder, SegmentFiles::Access::kRead), index_(std::move(index)) {}

Result<std::unique_ptr<DerivedReader>> DerivedReader::Open(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(folder / "index.db", error)) {
    return Fail(ErrorCode::kNotFound, folder.string() + " is no derived store");
  }
  NDP_ASSIGN(auto index, DerivedIndex::OpenReader(folder));
  return std::unique_ptr<DerivedReader>(new DerivedReader(folder, std::move(index)));
}

Result<std::optional<std::pair<int64_t, Place>>> DerivedReader::Find(const std::string& space,
                                                                     int64_t number) {
  std::lock_guard lock(mutex_);
  for (const bool is_listed : {false, true}) {
    if (is_listed) {
      // The space is new, or was dropped and made again, with another number.
      NDP_ASSIGN(const auto listed, index_.ListSpaces());
      for (const auto& each : listed) spaces_[each.name] = each.id;
    }
    const auto known = spaces_.find(space);
    if (known == spaces_.end()) continue;
    NDP_ASSIGN(const auto place, index_.Find(known->second, number));
    if (place && place->plausible()) return std::pair(known->second, *place);
  }
  return std::nullopt;
}

Status DerivedReader::Get(const std::string& space, int64_t number,
                          const std::function<void(std::span<const uint8_t>)>& take) {
  NDP_ASSIGN(const auto found, Find(space, number));
  if (!found) return {};
  const auto& [space_id, place] = *found;
  const auto file = files_.Open(place.segment);
  if (!file) return {};  // dropped meanwhile
  // Memory fresh from the kernel costs more than the item does.
  static thread_local std::vector<uint8_t> buffer;
  buffer.resize(static_cast<size_t>(place.end() - place.offset));
  if (ReadRange(**file, place.offset, buffer) != buffer.size()) return {};
  const RecordHeader expected{static_cast<uint32_t>(space_id), number,
                              static_cast<uint32_t>(place.length)};
  if (IsRecord(buffer, expected)) take(std::span(buffer).subspan(RecordHeader::kBytes));
  return {};
}

Result<std::vector<DerivedStore::Usage>> DerivedReader::ListUsage() {
  std::lock_guard lock(mutex_);
  return index_.ListUsage();
}

}  // namespace ndpipe::photo
