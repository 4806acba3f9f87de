// Files that survive a crash: what these functions report as written is on disk after kill -9 and
// after power loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe {

// An open file descriptor, closed at the end of its life. Movable.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.Release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release();

 private:
  int fd_ = -1;
};

// The whole file. kNotFound, kPermissionDenied; kResourceExhausted when it is larger than
// max_bytes; kInvalidArgument when it is not a regular file.
Result<std::vector<uint8_t>> ReadFile(const std::filesystem::path& path, size_t max_bytes);

// Writes beside `path`, syncs, renames, syncs the folder: readers see the old bytes or the new,
// never a part.
Status WriteFileDurably(const std::filesystem::path& path, std::span<const uint8_t> bytes);
Status WriteFileDurably(const std::filesystem::path& path, std::string_view text);

// WriteFileDurably for what is made bit by bit: written beside `path`, and there only after Commit.
// One thread.
class DurableFileWriter {
 public:
  static Result<DurableFileWriter> Create(const std::filesystem::path& path);
  DurableFileWriter(DurableFileWriter&&) noexcept = default;
  DurableFileWriter& operator=(DurableFileWriter&&) = delete;
  ~DurableFileWriter();  // without Commit: nothing is left

  Status Write(std::string_view text);  // buffered
  // Syncs, renames, syncs the folder. At most once; whatever it returns, the writer is done.
  Status Commit();

 private:
  DurableFileWriter(std::filesystem::path path, std::filesystem::path temporary, FileDescriptor fd);
  Status Flush();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  FileDescriptor fd_;  // invalid once committed
  std::string buffer_;
};

// A name beside `path` for what becomes it by a rename, as DurableFileWriter's; no two calls of a
// process get the same.
std::filesystem::path UnfinishedName(const std::filesystem::path& path);

// Removes files of such names from `folder` itself: what a process that was killed while it wrote
// has left. For folders that nobody else is writing to. Never fails: what stays costs room only.
void RemoveUnfinished(const std::filesystem::path& folder);

// Makes a rename or creation in `folder` durable.
Status SyncFolder(const std::filesystem::path& folder);

// Creates the folder and its parents. An existing folder is no error.
Status MakeFolders(const std::filesystem::path& folder);

// An exclusive lock on a file, held until the object dies or the process ends, however it ends.
class FileLock {
 public:
  // kAlreadyExists when another process holds it: `busy_message` is what the error says. Does not
  // block.
  static Result<FileLock> Acquire(const std::filesystem::path& path, std::string_view busy_message);

 private:
  explicit FileLock(FileDescriptor fd) : fd_(std::move(fd)) {}
  FileDescriptor fd_;
};

// A read-only memory map of a whole file. The bytes are shared and immutable; any thread may read
// them.
class MappedFile {
 public:
  static Result<MappedFile> Open(const std::filesystem::path& path, size_t max_bytes);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const uint8_t> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ndpipe
