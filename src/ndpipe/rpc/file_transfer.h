// Files in pieces: FileSender reads one; FileReceiver writes one beside its place, hashes it on the
// way, and puts it there only when it is whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "ndpipe/base/file.h"
#include "ndpipe/base/hash.h"
#include "ndpipe/base/result.h"

namespace ndpipe::rpc {

inline constexpr size_t kFileChunkBytes = size_t{1} << 20;
inline constexpr int64_t kMaxModelBytes = int64_t{2} << 30;
inline constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;

// Owns a temporary file until Keep; without it, the file is removed. One thread at a time.
class FileReceiver {
 public:
  // size_bytes: of the whole file. kResourceExhausted beyond max_bytes or when the disk is full.
  static Result<FileReceiver> Create(const std::filesystem::path& to, int64_t size_bytes,
                                     int64_t max_bytes);
  FileReceiver(FileReceiver&&) = default;
  FileReceiver& operator=(FileReceiver&&) = delete;
  ~FileReceiver();

  // kDataLoss for more than the file's size.
  Status Append(std::span<const uint8_t> bytes);
  // Once, after the last Append: the hash of what arrived. kDataLoss when some is missing.
  Result<Hash256> Finish();
  // Puts the file in its place, durably. After Finish.
  Status Keep();

 private:
  FileReceiver(std::filesystem::path to, std::filesystem::path temporary, FileDescriptor fd,
               int64_t size_bytes);
  std::filesystem::path to_;
  std::filesystem::path temporary_;
  FileDescriptor fd_;  // invalid: moved from, or kept
  int64_t size_bytes_;
  int64_t received_bytes_ = 0;
  std::unique_ptr<Sha256> hash_ = std::make_unique<Sha256>();
};

// Reads a regular file in pieces of at most kFileChunkBytes. One thread at a time.
class FileSender {
 public:
  static Result<FileSender> Open(const std::filesystem::path& path, int64_t max_bytes);
  int64_t size_bytes() const { return size_bytes_; }
  // The next piece; empty after size_bytes. kDataLoss when the file shrank meanwhile. The bytes are
  // valid until the next call.
  Result<std::span<const uint8_t>> Next();

 private:
  FileSender(std::filesystem::path path, FileDescriptor fd, int64_t size_bytes)
      : path_(std::move(path)), fd_(std::move(fd)), size_bytes_(size_bytes) {}
  std::filesystem::path path_;
  FileDescriptor fd_;
  int64_t size_bytes_;
  int64_t sent_bytes_ = 0;
  std::vector<uint8_t> buffer_;
};

}  // namespace ndpipe::rpc
