#include "ndpipe/cli/label_rows.h"

#include <fmt/format.h>

#include <utility>

namespace ndpipe::cli {
namespace {

constexpr size_t kMaxFailures = 1000;

// A field of RFC 4180.
std::string Quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string quoted = "\"";
  for (char c : field) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

std::string ClassName(const model::Backbone& backbone, int32_t class_index) {
  const auto& names = backbone.manifest.class_names;
  const auto index = static_cast<size_t>(class_index);
  return index < names.size() ? names[index] : std::to_string(class_index);
}

}  // namespace

Result<LabelRows> LabelRows::Create(const std::string& output, const model::Backbone& backbone,
                                    InferInput& input) {
  std::optional<DurableFileWriter> file;
  if (!output.empty()) {
    NDP_ASSIGN(auto created, DurableFileWriter::Create(output));
    NDP_RETURN_IF_ERROR(created.Write("path,label,class_index,confidence,error\n"));
    file.emplace(std::move(created));
  }
  return LabelRows(std::move(file), backbone, input);
}

void LabelRows::AddLabelled(int64_t photo, const engine::Top1& top1, Rows& rows) {
  if (!file_) return;
  rows.text += fmt::format("{},{},{},{:.6f},\n", Quoted(input_.PathOf(photo)),
                           Quoted(ClassName(backbone_, top1.class_index)), top1.class_index,
                           top1.confidence);
}

void LabelRows::AddFailed(const extract::PhotoFailure& failure, Rows& rows) {
  const std::string path = input_.PathOf(failure.photo);
  if (file_) rows.text += fmt::format("{},,,,{}\n", Quoted(path), Quoted(failure.reason));
  if (failures_.size() + rows.failures.size() < kMaxFailures) {
    rows.failures.push_back({path, failure.reason});
  }
}

Status LabelRows::Add(const extract::BlockFeatures& block, std::span<const engine::Top1> top1) {
  Rows& rows = waiting_[block.block];
  auto failure = block.failures.begin();
  for (size_t i = 0; i < block.photos.size(); ++i) {
    for (; failure != block.failures.end() && failure->photo < block.photos[i]; ++failure) {
      AddFailed(*failure, rows);
    }
    AddLabelled(block.photos[i], top1[i], rows);
  }
  for (; failure != block.failures.end(); ++failure) AddFailed(*failure, rows);
  while (!waiting_.empty() && waiting_.begin()->first == next_block_) {
    const auto next = waiting_.extract(waiting_.begin());
    if (file_) NDP_RETURN_IF_ERROR(file_->Write(next.mapped().text));
    for (const auto& failed : next.mapped().failures) {
      if (failures_.size() < kMaxFailures) failures_.push_back(failed);
    }
    ++next_block_;
  }
  return {};
}

Status LabelRows::Commit() {
  NDP_CHECK(waiting_.empty());
  return file_ ? file_->Commit() : Status{};
}

}  // namespace ndpipe::cli
