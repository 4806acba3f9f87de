// The segment files of a derived store and the records in them. Internal to derived/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/base/result.h"

namespace ndpipe::photo {

inline constexpr int64_t kMaxSegmentBytes = int64_t{256} << 20;

// What the disk gives room in. Where a file system has larger blocks, less comes back.
inline constexpr int64_t kBlockBytes = 4096;
constexpr int64_t BlockFloor(int64_t offset) { return offset / kBlockBytes * kBlockBytes; }
constexpr int64_t BlockCeil(int64_t offset) { return BlockFloor(offset + kBlockBytes - 1); }

// What stands before an item's bytes; docs/formats/derived_store.md.
struct RecordHeader {
  static constexpr size_t kBytes = 24;

  uint32_t space = 0;
  int64_t number = 0;
  uint32_t length = 0;  // of the bytes that follow
};

struct Record {
  RecordHeader header;             // of the length that bytes have
  std::span<const uint8_t> bytes;  // the item
};

// Fills `to` from `offset` on; how much of it the file had. Reads the file without any lock.
size_t ReadRange(const FileDescriptor& file, int64_t offset, std::span<uint8_t> to);

// Whether `record`, header and bytes, is the expected one and undamaged.
bool IsRecord(std::span<const uint8_t> record, const RecordHeader& expected);

struct ByteRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// The files of one folder by segment number, a bounded number of them held open. Thread-safe; the
// descriptors that it hands out outlive it. No call waits for the bytes of another.
class SegmentFiles {
 public:
  enum class Access { kReadWrite, kRead };  // kRead: Open only
  explicit SegmentFiles(std::filesystem::path folder, Access access = Access::kReadWrite)
      : folder_(std::move(folder)), access_(access) {}

  std::filesystem::path PathOf(int64_t segment) const;

  // kNotFound when the file is gone.
  Result<std::shared_ptr<FileDescriptor>> Open(int64_t segment);
  // An empty file, whatever was there.
  Result<std::shared_ptr<FileDescriptor>> Create(int64_t segment);
  // One record after another. kResourceExhausted when the disk is full: a part may have been
  // written.
  Status Write(int64_t segment, int64_t offset, std::span<const Record> records);
  // Cuts the file to `size` when it is longer. A missing file is no error.
  Status CutTo(int64_t segment, int64_t size);
  // Zeros over the ranges, as far as the file reaches, durably. A missing file is no error.
  Status Wipe(int64_t segment, std::span<const ByteRange> ranges);
  // Gives the whole blocks of a wiped range back to the file system; the file's size stays. False
  // where the file system cannot, or the file is missing.
  Result<bool> Punch(int64_t segment, const ByteRange& range);
  Status Remove(int64_t segment);
  // The segments that have a file.
  Result<std::vector<int64_t>> List() const;

 private:
  struct OpenFile {
    std::shared_ptr<FileDescriptor> file;
    uint64_t last_use = 0;
  };
  // The caller holds mutex_, so that no file is opened while it is removed.
  Result<std::shared_ptr<FileDescriptor>> OpenWith(int64_t segment, int flags);

  const std::filesystem::path folder_;
  const Access access_;
  std::mutex mutex_;  // guards all below
  std::unordered_map<int64_t, OpenFile> open_;
  uint64_t uses_ = 0;
};

}  // namespace ndpipe::photo
