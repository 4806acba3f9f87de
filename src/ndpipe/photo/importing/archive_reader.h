// Tar archives, compressed or not, read once from front to back. Nothing is ever unpacked to disk,
// so names in an archive cannot lead anywhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

struct archive;
struct archive_entry;

namespace ndpipe::photo {

// What an archive may hold before it is refused.
struct ArchiveLimits {
  std::string kind;       // for people: "a CIFAR-100 archive"
  int64_t max_bytes = 0;  // unpacked, headers included
  int64_t max_entries = 0;
};

struct ArchiveEntry {
  std::string name;
  int64_t size = 0;
};

// An archive of the outside world: nothing that it claims is believed, or allocated. One thread.
class ArchiveReader {
 public:
  // kDataLoss, as all below: damaged, truncated, or no tar, plain or by gzip or zstd.
  static Result<ArchiveReader> Open(const std::filesystem::path& file, ArchiveLimits limits);

  // The next regular file; nothing at the end. kResourceExhausted: beyond the limits.
  Result<std::optional<ArchiveEntry>> Next();

  // Reads on in the file that Next() gave, until `bytes` has `size` bytes or the file ends.
  Status ReadUpTo(int64_t size, std::vector<uint8_t>& bytes);
  // All of it. kResourceExhausted: more than max_bytes.
  Result<std::vector<uint8_t>> ReadAll(const ArchiveEntry& entry, size_t max_bytes);

 private:
  struct Free {
    void operator()(::archive* handle) const;
  };
  ArchiveReader(std::filesystem::path file, ArchiveLimits limits);
  std::unexpected<Error> Broken() const;

  std::filesystem::path file_;
  ArchiveLimits limits_;
  std::unique_ptr<::archive, Free> archive_;
  int64_t total_bytes_ = 0;
  int64_t num_entries_ = 0;
};

// "a/b.jpg" → "b.jpg".
std::string_view Basename(std::string_view path);

}  // namespace ndpipe::photo
