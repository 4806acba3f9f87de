#include "ndpipe/photo/importing/webdataset_sample.h"

#include <cstdint>
#include <nlohmann/json.hpp>

#include "ndpipe/base/bytes.h"
#include "ndpipe/photo/importing/archive_reader.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return lower;
}

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

bool IsLabel(std::string_view text) {
  return !text.empty() && text.size() <= kMaxLabelBytes && IsPlainUtf8(text) &&
         text.find_first_of("\r\n") == std::string_view::npos;
}

std::unexpected<Error> NoLabel(std::string_view why) {
  return Fail(ErrorCode::kDataLoss, "its label cannot be read: " + std::string(why));
}

Result<std::optional<std::string>> ParseJsonLabel(std::string_view text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return NoLabel("it is no JSON");
  const auto label = json.is_object() ? json.find("label") : json.end();
  if (label == json.end() || label->is_null()) return std::nullopt;
  if (label->is_number_integer()) return label->dump();
  if (!label->is_string()) return NoLabel("the field \"label\" is neither text nor a whole number");
  const auto& name = label->get_ref<const std::string&>();
  if (!IsLabel(Trimmed(name))) return NoLabel("the field \"label\" is no short line of text");
  return std::string(Trimmed(name));
}

}  // namespace

SampleName SplitSampleName(std::string_view path) {
  const std::string_view name = Basename(path);
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {.key = path, .extension = {}};
  const size_t key_size = path.size() - name.size() + dot;
  return {.key = path.substr(0, key_size), .extension = path.substr(key_size + 1)};
}

std::optional<LabelKind> LabelKindOf(std::string_view extension) {
  const std::string lower = Lower(extension);
  if (lower == "cls") return LabelKind::kClass;
  if (lower == "json") return LabelKind::kJson;
  if (lower == "txt") return LabelKind::kText;
  return std::nullopt;
}

Result<std::optional<std::string>> ParseLabel(LabelKind kind, std::span<const uint8_t> bytes) {
  const std::string_view text = AsText(bytes);
  if (kind == LabelKind::kJson) return ParseJsonLabel(text);
  const std::string_view line = Trimmed(text);
  if (IsLabel(line)) return std::string(line);
  if (kind == LabelKind::kText) return std::nullopt;
  return NoLabel("it holds no short line of text");
}

}  // namespace ndpipe::photo
