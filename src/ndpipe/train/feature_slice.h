// The features of one slice, in memory or in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/base/half.h"
#include "ndpipe/base/result.h"
#include "ndpipe/train/feature_set.h"

namespace ndpipe::train {

// Rows of features with their classes. The classes lie in memory, the features in memory or in a
// file (docs/formats/feature_slice.md). Immutable; copies share what they hold; any thread may
// read. Starts empty.
class FeatureSlice {
 public:
  FeatureSlice() = default;
  // Implicit: a set is a slice in memory.
  FeatureSlice(FeatureSet set);  // NOLINT(google-explicit-constructor)
  // Borrows the set, which must outlive every copy.
  static FeatureSlice View(const FeatureSet& set);
  // Reads all of it once, for its checksum. kNotFound; kDataLoss for what FeatureSliceWriter cannot
  // have made. The file may be unlinked afterwards, but must not be changed.
  static Result<FeatureSlice> Open(const std::filesystem::path& file);

  int64_t size() const { return static_cast<int64_t>(classes().size()); }
  int64_t feature_size() const { return feature_size_; }
  std::span<const int32_t> classes() const;
  bool in_memory() const { return file_ == nullptr; }
  int64_t feature_bytes() const;  // wherever they lie

  // Rows row … row + count - 1, which must be there: features [count, feature_size]. Blocks while
  // it reads a file. kDataLoss when the file has shrunk, kInternal for what else the system says.
  Status Read(int64_t row, int64_t count, Half* features) const;

  // CheckFeatures of what it holds; reads all of a file.
  Status Check(int64_t feature_size, int64_t num_classes) const;

 private:
  friend class FeatureSliceWriter;
  FeatureSlice(int64_t feature_size, std::vector<int32_t> classes, FileDescriptor file);

  int64_t feature_size_ = 0;
  std::shared_ptr<const FeatureSet> set_;  // null: in the file
  std::shared_ptr<const FileDescriptor> file_;
  std::shared_ptr<const std::vector<int32_t>> file_classes_;
};

// Writes a slice to a file, row by row, in bounded memory: 4 bytes a row. One thread. What it has
// written is not synced: a slice can be made again from what it was made of.
class FeatureSliceWriter {
 public:
  // Replaces what is there. kInvalidArgument: absurd sizes; kResourceExhausted: no room.
  static Result<FeatureSliceWriter> Create(const std::filesystem::path& file, int64_t feature_size,
                                           int64_t num_rows);

  // Rows row … row + classes.size() - 1, in any order. features: [classes.size(), feature_size]. A
  // row that is never put has class -1, which Check refuses.
  Status Put(int64_t row, std::span<const Half> features, std::span<const int32_t> classes);

  // Adds classes and checksum; the slice reads the file. At most once.
  Result<FeatureSlice> Finish();

 private:
  FeatureSliceWriter(std::filesystem::path file, FileDescriptor fd, int64_t feature_size,
                     int64_t num_rows);

  std::filesystem::path file_;
  FileDescriptor fd_;
  int64_t feature_size_ = 0;
  std::vector<int32_t> classes_;
};

}  // namespace ndpipe::train
