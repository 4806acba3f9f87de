// Zip files: their entries, read by number from any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

// An open zip, not trusted. Nothing is unpacked to disk, and what a header claims allocates no more
// than the limits allow. Thread-safe: the compressed bytes are read under a mutex, and decompressed
// and checked outside it.
class ZipArchive {
 public:
  // kNotFound; kDataLoss: no zip, damaged, or cut off. Reads the archive's directory into memory.
  static Result<ZipArchive> Open(const std::filesystem::path& file);
  ZipArchive(ZipArchive&&) noexcept;
  ZipArchive& operator=(ZipArchive&&) noexcept;
  ~ZipArchive();

  int64_t num_entries() const { return num_entries_; }
  // "folder/name" as UTF-8; a folder's ends in '/'. entry: 0 … num_entries - 1.
  std::string NameOf(int64_t entry) const;

  // The entry's bytes. kInvalidArgument: encrypted, compressed in another way than by deflate, or a
  // name that leads out of the archive; kResourceExhausted: more than max_bytes; kDataLoss: broken,
  // cut off, or with another checksum than its own.
  Result<std::vector<uint8_t>> Read(int64_t entry, size_t max_bytes) const;

  // The first bytes of the entry, at most max_bytes; unchecked, for telling what it is. Empty when
  // it cannot be read.
  std::vector<uint8_t> ReadHead(int64_t entry, size_t max_bytes) const;

 private:
  struct Handle;
  struct Packed;
  explicit ZipArchive(std::unique_ptr<Handle> handle, int64_t num_entries);
  Result<Packed> ReadPacked(int64_t entry, size_t max_bytes) const;

  std::unique_ptr<Handle> handle_;
  int64_t num_entries_ = 0;
};

// Whether a file begins as a zip does.
bool BeginsLikeAZip(const std::filesystem::path& file);

}  // namespace ndpipe::photo
