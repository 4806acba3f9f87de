#include "durable_labels.h"

#include <fmt/format.h>

#include <optional>
#include <string>

#include "ndpipe/photo/photo.h"

namespace ndpipe::bench {
namespace {

constexpr char kStore[] = "store";
constexpr int64_t kChangesPerBatch = 4096;

Status AddPhotos(label::LabelDatabase& database, int64_t num_photos) {
  std::vector<photo::Change> changes;
  for (int64_t number = 1; number <= num_photos; ++number) {
    photo::Change change;
    change.sequence = number;
    change.number = number;
    change.id = Sha256::Of(std::to_string(number));
    change.path = fmt::format("{}.jpg", number);
    changes.push_back(std::move(change));
    if (static_cast<int64_t>(changes.size()) == kChangesPerBatch || number == num_photos) {
      if (const auto applied = database.ApplyChanges(kStore, changes); !applied) {
        return std::unexpected(applied.error());
      }
      changes.clear();
    }
  }
  return {};
}

}  // namespace

Result<DurableLabels> DurableLabels::Create(const std::filesystem::path& file, int64_t num_photos,
                                            int64_t num_classes) {
  DurableLabels labels;
  NDP_ASSIGN(labels.database_, label::LabelDatabase::Open(file));
  NDP_RETURN_IF_ERROR(AddPhotos(*labels.database_, num_photos));
  std::vector<std::string> names;
  for (int64_t i = 0; i < num_classes; ++i) names.push_back(fmt::format("class {}", i));
  NDP_ASSIGN(labels.classes_, labels.database_->LabelIds(names));
  return labels;
}

Status DurableLabels::BeginPass() {
  label::ModelVersion version;
  version.classes = classes_;
  NDP_ASSIGN(version_, database_->CreateVersion(version));
  return {};
}

Status DurableLabels::Commit(engine::TailEngine& tail, const extract::BlockFeatures& block) {
  std::vector<engine::Top1> top1(block.photos.size());
  NDP_RETURN_IF_ERROR(tail.Classify(block.features, top1));
  std::vector<label::LabelOutcome> outcomes;
  outcomes.reserve(top1.size() + block.failures.size());
  for (size_t i = 0; i < top1.size(); ++i) {
    outcomes.push_back({block.photos[i], classes_[static_cast<size_t>(top1[i].class_index)],
                        top1[i].confidence, ""});
  }
  for (const auto& failure : block.failures) {
    outcomes.push_back({failure.photo, std::nullopt, 0, failure.reason});
  }
  return database_->WriteOutcomes(version_, kStore, outcomes);
}

}  // namespace ndpipe::bench
