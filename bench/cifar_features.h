// Features of CIFAR-100's photos at any cut of a backbone, kept in files between runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "measure.h"
#include "ndpipe/extract/views.h"
#include "ndpipe/model/cuts.h"
#include "ndpipe/photo/store.h"
#include "ndpipe/train/feature_slice.h"
#include "ndpipe/train/tail_part.h"

namespace ndpipe::bench {

inline constexpr int64_t kCifarClasses = 100;

// What the body makes of the archive's photos at one cut, in the order of their numbers.
struct CutFeatures {
  train::TailPart part;
  train::FeatureSlice training;
  train::FeatureSlice test;
  double extract_seconds = 0;  // 0: read from the files of an earlier run

  int64_t feature_size() const { return training.feature_size(); }
};

class CifarFeatures {
 public:
  // folder: of the files, which stay. The archive is imported when features are first missing.
  static Result<CifarFeatures> Open(const BenchModel& model, std::filesystem::path archive,
                                    std::filesystem::path folder);

  // All cuts of the backbone, from photos to logits.
  const std::vector<model::Cut>& cuts() const { return cuts_; }
  Result<model::Cut> Cut(const std::string& tensor) const;  // kNotFound
  Result<CutFeatures> At(const model::Cut& cut);
  // Of each training photo so many views, one after another; there is no test part.
  Result<CutFeatures> ViewsAt(const model::Cut& cut, int views,
                              const extract::ViewStrength& strength);

 private:
  CifarFeatures(const BenchModel& model, std::filesystem::path archive,
                std::filesystem::path folder);
  Status Import();
  Status Extract(const model::Cut& cut, int views, const extract::ViewStrength& strength,
                 const std::filesystem::path& folder);

  const BenchModel* model_;
  std::filesystem::path archive_;
  std::filesystem::path folder_;
  std::shared_ptr<const model::Graph> graph_;
  std::vector<model::Cut> cuts_;
  std::unique_ptr<photo::PhotoStore> store_;  // once imported
  struct Place {
    bool is_test = false;
    int64_t row = 0;
    int32_t class_index = 0;
    photo::PhotoId id{};
  };
  std::map<int64_t, Place> places_;  // by photo number
  int64_t num_training_ = 0;
  int64_t num_test_ = 0;
};

}  // namespace ndpipe::bench
