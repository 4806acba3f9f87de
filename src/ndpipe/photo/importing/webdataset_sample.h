// The words of a WebDataset archive: which file belongs to which sample, and what its label is.
// Internal to importing/.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// What a file of a sample says of its label, the most explicit first.
enum class LabelKind { kClass, kJson, kText };  // KEY.cls, KEY.json, KEY.txt

// "train/0001.left.jpg" is of the sample "train/0001", whose extension is "left.jpg".
struct SampleName {
  std::string_view key;
  std::string_view extension;
};
SampleName SplitSampleName(std::string_view path);

// By the extension, in letters of either case; nothing for a file that holds no label.
std::optional<LabelKind> LabelKindOf(std::string_view extension);

// The label in a file's bytes; nothing when the file says none: an empty or long text (a caption),
// JSON without the field "label". kDataLoss: a class file that holds no short line of text, broken
// JSON, a label that is neither text nor a whole number. Labels are at most kMaxLabelBytes of
// UTF-8.
Result<std::optional<std::string>> ParseLabel(LabelKind kind, std::span<const uint8_t> bytes);

}  // namespace ndpipe::photo
