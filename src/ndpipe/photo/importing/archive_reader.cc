#include "ndpipe/photo/importing/archive_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace ndpipe::photo {
namespace {

constexpr size_t kReadBytes = size_t{1} << 16;
constexpr size_t kGrowBytes = size_t{1} << 22;
constexpr int64_t kHeaderBytes = 512;

// The name as it stands in the archive; of a pax header it is UTF-8, which the locale may not have.
std::string NameOf(archive_entry* entry) {
  const char* name = archive_entry_pathname(entry);
  if (name == nullptr) name = archive_entry_pathname_utf8(entry);
  return name == nullptr ? std::string() : name;
}

}  // namespace

void ArchiveReader::Free::operator()(::archive* handle) const { archive_read_free(handle); }

ArchiveReader::ArchiveReader(std::filesystem::path file, ArchiveLimits limits)
    : file_(std::move(file)), limits_(std::move(limits)), archive_(archive_read_new()) {}

Result<ArchiveReader> ArchiveReader::Open(const std::filesystem::path& file, ArchiveLimits limits) {
  ArchiveReader reader(file, std::move(limits));
  ::archive* handle = reader.archive_.get();
  NDP_CHECK(handle != nullptr);
  archive_read_support_filter_gzip(handle);
  archive_read_support_filter_zstd(handle);
  archive_read_support_format_tar(handle);
  if (archive_read_open_filename(handle, file.c_str(), kReadBytes) != ARCHIVE_OK) {
    return reader.Broken();
  }
  return reader;
}

Result<std::optional<ArchiveEntry>> ArchiveReader::Next() {
  while (true) {
    archive_entry* entry = nullptr;
    const int code = archive_read_next_header(archive_.get(), &entry);
    if (code == ARCHIVE_EOF) return std::nullopt;
    // A warning: its name is not of this locale.
    if (code != ARCHIVE_OK && code != ARCHIVE_WARN) return Broken();
    const int64_t size = archive_entry_size(entry);
    const int64_t left = limits_.max_bytes - total_bytes_;
    if (size < 0 || size > left - kHeaderBytes || ++num_entries_ > limits_.max_entries) {
      return Fail(ErrorCode::kResourceExhausted,
                  fmt::format("{} holds more than {} can: is it the right file?", file_.string(),
                              limits_.kind));
    }
    total_bytes_ += size + kHeaderBytes;
    if (archive_entry_filetype(entry) != AE_IFREG) continue;
    return ArchiveEntry{.name = NameOf(entry), .size = size};
  }
}

Status ArchiveReader::ReadUpTo(int64_t size, std::vector<uint8_t>& bytes) {
  const auto wanted = static_cast<size_t>(size);
  // Grows with what is really there: a header's claim allocates nothing.
  while (bytes.size() < wanted) {
    const size_t have = bytes.size();
    bytes.resize(std::min(wanted, have + kGrowBytes));
    const la_ssize_t count =
        archive_read_data(archive_.get(), bytes.data() + have, bytes.size() - have);
    if (count <= 0) return Broken();
    bytes.resize(have + static_cast<size_t>(count));
  }
  return {};
}

Result<std::vector<uint8_t>> ArchiveReader::ReadAll(const ArchiveEntry& entry, size_t max_bytes) {
  if (std::cmp_greater(entry.size, max_bytes)) {
    return Fail(ErrorCode::kResourceExhausted,
                fmt::format("{}: {} has {} bytes, more than the limit of {}", file_.string(),
                            entry.name, entry.size, max_bytes));
  }
  std::vector<uint8_t> bytes;
  NDP_RETURN_IF_ERROR(ReadUpTo(entry.size, bytes));
  return bytes;
}

std::unexpected<Error> ArchiveReader::Broken() const {
  const char* reason = archive_error_string(archive_.get());
  return Fail(ErrorCode::kDataLoss,
              fmt::format("{} is damaged or no tar archive ({}): fetch it again", file_.string(),
                          reason == nullptr ? "it ends early" : reason));
}

std::string_view Basename(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace ndpipe::photo
