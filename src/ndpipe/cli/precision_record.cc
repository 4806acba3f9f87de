#include "ndpipe/cli/precision_record.h"

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"

namespace ndpipe::cli {
namespace {

constexpr int kFormat = 1;
constexpr size_t kMaxRecordBytes = size_t{1} << 20;

PrecisionChoice ChoiceOf(const Json& json) {
  PrecisionChoice choice;
  choice.precision = json.at("precision").get<std::string>();
  choice.reason = json.at("reason").get<std::string>();
  choice.num_photos = json.at("photos").get<int64_t>();
  choice.remembered = true;
  for (const auto& item : json.at("candidates")) {
    PrecisionCandidate candidate;
    candidate.precision = item.at("precision").get<std::string>();
    candidate.skipped = item.value("skipped", std::string());
    if (candidate.skipped.empty()) {
      candidate.images_per_second = item.at("images_per_second").get<double>();
      candidate.agreement = item.at("agreement").get<double>();
    }
    choice.candidates.push_back(std::move(candidate));
  }
  return choice;
}

bool IsOneOfThem(const PrecisionChoice& choice) {
  for (const auto& candidate : choice.candidates) {
    if (candidate.precision == choice.precision) return candidate.skipped.empty();
  }
  return false;
}

}  // namespace

std::optional<PrecisionRecord> ReadPrecisionRecord(const std::filesystem::path& file) {
  const auto bytes = ReadFile(file, kMaxRecordBytes);
  if (!bytes) return std::nullopt;
  const auto json = Json::parse(AsText(*bytes), nullptr, false);
  if (json.is_discarded()) return std::nullopt;
  try {
    if (json.at("format").get<int>() != kFormat) return std::nullopt;
    PrecisionRecord record{json.at("engine").get<std::string>(), ChoiceOf(json.at("choice"))};
    if (!IsOneOfThem(record.choice)) return std::nullopt;
    return record;
  } catch (const Json::exception&) {
    return std::nullopt;  // what somebody else has written there is measured anew
  }
}

Status WritePrecisionRecord(const std::filesystem::path& file, const PrecisionRecord& record) {
  const Json json = {
      {"format", kFormat}, {"engine", record.engine}, {"choice", ToJson(record.choice)}};
  return WriteFileDurably(file, std::string_view(json.dump(2) + "\n"));
}

}  // namespace ndpipe::cli
