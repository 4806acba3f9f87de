// Folders of photos and ImageFolder trees.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "ndpipe/photo/image/preprocess.h"
#include "ndpipe/photo/importing/intake.h"
#include "ndpipe/photo/importing/photo_file.h"
#include "ndpipe/photo/importing/sources.h"
#include "ndpipe/photo/location_path.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 128;

struct WalkedFile {
  std::string relative;  // below the root; bytes as the file system gives them
  std::string reason;    // not empty: it cannot be imported, and why
};

// Finds the candidates of a tree, sorted by path so that shares and numbers do not depend on the
// file system.
class Walk {
 public:
  Walk(fs::path root, fs::path store_folder)
      : root_(std::move(root)), store_folder_(std::move(store_folder)) {}

  Result<std::vector<WalkedFile>> Run() {
    NDP_RETURN_IF_ERROR(Enter({}, 0));
    std::ranges::sort(files_, {}, &WalkedFile::relative);
    return std::move(files_);
  }

 private:
  Status Enter(const fs::path& relative, int depth) {
    std::error_code error;
    fs::directory_iterator entries(root_ / relative, error);
    if (error && depth == 0) {
      return FailErrno("cannot read folder " + root_.string(), error.value());
    }
    if (depth > kMaxDepth) error = std::make_error_code(std::errc::filename_too_long);
    for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
      const fs::path name = entries->path().filename();
      if (name.native().starts_with('.')) continue;
      NDP_RETURN_IF_ERROR(Look(relative / name, depth));
    }
    if (error) files_.push_back({relative.native(), "cannot read folder: " + error.message()});
    return {};
  }

  Status Look(const fs::path& relative, int depth) {
    const fs::path path = root_ / relative;
    std::error_code error;
    const fs::file_status status = fs::symlink_status(path, error);
    if (fs::is_directory(status)) {
      // The store itself may lie in the tree that is imported into it.
      return path == store_folder_ ? Status{} : Enter(relative, depth + 1);
    }
    if (fs::is_symlink(status)) {
      if (HasPhotoName(path)) files_.push_back({relative.native(), CheckLink(path)});
      return {};
    }
    if (HasPhotoName(path)) {
      const bool is_file = fs::is_regular_file(status);
      files_.push_back({relative.native(), is_file ? "" : "not a regular file"});
    } else if (fs::is_regular_file(status) && BeginsLikeAPhoto(path)) {
      files_.push_back({relative.native(), ""});
    }
    return {};
  }

  // A link to a file of the same tree is as good as the file: ImageFolder trees are made so.
  std::string CheckLink(const fs::path& path) const {
    std::error_code error;
    const fs::path target = fs::canonical(path, error);
    if (error) return "a link that leads nowhere: " + error.message();
    const auto [end, ignored] =
        std::mismatch(root_.begin(), root_.end(), target.begin(), target.end());
    if (end != root_.end()) return "a link that leads out of the imported folder";
    return fs::is_regular_file(target, error) ? "" : "a link to something that is not a file";
  }

  const fs::path root_;
  const fs::path store_folder_;
  std::vector<WalkedFile> files_;
};

int64_t ModifiedUs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000 + info.st_mtim.tv_nsec / 1000;
}

// ImageFolder: every photo lies exactly one level deep.
bool IsImageFolder(const std::vector<WalkedFile>& files) {
  return std::ranges::all_of(
      files, [](const auto& file) { return std::ranges::count(file.relative, '/') == 1; });
}

// Turns one file of the tree into a candidate. Thread-safe.
class FolderReader {
 public:
  FolderReader(PhotoStore& store, fs::path root, bool in_place, bool is_image_folder)
      : store_(store),
        root_(std::move(root)),
        in_place_(in_place),
        is_image_folder_(is_image_folder) {}

  Candidate Read(const WalkedFile& file) const {
    const fs::path path = root_ / file.relative;
    if (!IsPlainUtf8(path.native())) {
      return FailedCandidate(EscapeBytes(file.relative),
                             "the file's name is not UTF-8: rename it, then import again");
    }
    if (!file.reason.empty()) return FailedCandidate(file.relative, file.reason);
    struct stat info{};
    if (::stat(path.c_str(), &info) != 0) {
      return FailedCandidate(file.relative, FailErrno("cannot read it", errno).error().message);
    }
    NewPhoto photo{.id = {},
                   .path = path.native(),
                   .origin = file.relative,
                   .size_bytes = info.st_size,
                   .modified_us = ModifiedUs(info),
                   .labels = {}};
    if (is_image_folder_) photo.labels.push_back(file.relative.substr(0, file.relative.find('/')));
    return in_place_ ? ReadInPlace(std::move(photo)) : ReadForCopy(std::move(photo));
  }

 private:
  // The file's bytes, if they begin like a photo.
  static Result<std::vector<uint8_t>> ReadPhoto(const std::string& path) {
    NDP_ASSIGN(auto bytes, ReadFile(path, kMaxPhotoBytes));
    if (bytes.empty()) return Fail(ErrorCode::kInvalidArgument, "the file is empty");
    if (FormatOf(bytes).empty()) {
      return Fail(ErrorCode::kInvalidArgument, "its content is neither JPEG nor PNG nor WebP");
    }
    return bytes;
  }

  Candidate ReadForCopy(NewPhoto photo) const {
    auto bytes = ReadPhoto(photo.path);
    if (!bytes) return FailedCandidate(photo.origin, std::move(bytes).error().message);
    const std::string_view format = FormatOf(*bytes);
    const std::string extension = format == "jpeg" ? ".jpg" : fmt::format(".{}", format);
    return CopiedCandidate(store_, *bytes, std::move(photo), extension);
  }

  Candidate ReadInPlace(NewPhoto photo) const {
    const auto known =
        store_.WithCatalog([&](Catalog& catalog) { return catalog.FindPath(photo.path); });
    if (!known) return FailedCandidate(photo.origin, known.error().message);
    if (*known && (*known)->size_bytes == photo.size_bytes &&
        (*known)->modified_us == photo.modified_us) {
      photo.id = (*known)->id;
      return {.photo = std::move(photo)};
    }
    auto bytes = ReadPhoto(photo.path);
    if (!bytes) {
      Candidate failed = FailedCandidate(photo.origin, bytes.error().message);
      failed.is_changed = known->has_value() && bytes.error().code == ErrorCode::kInvalidArgument;
      failed.path = photo.path;
      return failed;
    }
    photo.id = Sha256::Of(*bytes);
    photo.size_bytes = static_cast<int64_t>(bytes->size());
    Candidate candidate{.photo = std::move(photo)};
    if (*known && (*known)->id != candidate.photo->id) {
      candidate.is_changed = true;
      candidate.path = candidate.photo->path;
    } else if (!*known) {
      candidate.moved_from = FormerPath(candidate.photo->id);
    }
    return candidate;
  }

  // Where a photo lay that is now found elsewhere: a recorded path at which no file is any more.
  std::string FormerPath(const PhotoId& id) const {
    const auto locations =
        store_.WithCatalog([&](Catalog& catalog) -> Result<std::vector<Catalog::Location>> {
          NDP_ASSIGN(const auto number, catalog.NumberOf(id));
          if (!number) return std::vector<Catalog::Location>();
          return catalog.Locations(*number);
        });
    if (!locations) return {};
    for (const auto& location : *locations) {
      struct stat info{};
      if (location.path.starts_with('/') && ::lstat(location.path.c_str(), &info) != 0 &&
          errno == ENOENT) {
        return location.path;
      }
    }
    return {};
  }

  PhotoStore& store_;
  const fs::path root_;
  const bool in_place_;
  const bool is_image_folder_;
};

// Marks what the catalog places under the folder and is no longer there.
Result<int64_t> MarkVanished(PhotoStore& store, const fs::path& root) {
  constexpr int64_t kPage = 10'000;
  const std::string prefix = root == "/" ? "/" : root.native() + "/";
  int64_t after_row = 0;
  int64_t num_missing = 0;
  while (true) {
    NDP_ASSIGN(const auto page, store.WithCatalog([&](Catalog& catalog) {
      return catalog.LocationsUnder(prefix, after_row, kPage);
    }));
    if (page.empty()) return num_missing;
    after_row = page.back().row;
    std::vector<std::string> vanished;
    for (const auto& location : page) {
      struct stat info{};
      const bool is_gone =
          ::stat(location.path.c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR);
      if (is_gone) vanished.push_back(location.path);
    }
    NDP_RETURN_IF_ERROR(
        store.WithCatalog([&](Catalog& catalog) { return catalog.MarkMissing(vanished); }));
    num_missing += static_cast<int64_t>(vanished.size());
  }
}

}  // namespace

Result<ImportReport> ImportFolder(PhotoStore& store, const fs::path& folder,
                                  const ImportOptions& options) {
  std::error_code error;
  const fs::path root = fs::canonical(folder, error);
  if (error) return FailErrno("cannot open folder " + folder.string(), error.value());
  const fs::path store_folder = fs::canonical(store.folder(), error);
  NDP_ASSIGN(const auto files, Walk(root, store_folder).Run());
  const FolderReader reader(store, root, options.in_place, IsImageFolder(files));
  const Share share(options);
  const int64_t count = share.CountOf(static_cast<int64_t>(files.size()));
  Intake intake(store, options, count);
  {
    OrderedPipeline<Candidate> pipeline(count, NumImportThreads(), [&](int64_t i) {
      return reader.Read(files[static_cast<size_t>(share.At(i))]);
    });
    NDP_RETURN_IF_ERROR(intake.TakeAll(pipeline));
  }
  NDP_ASSIGN(auto report, intake.Finish());
  if (options.in_place) {
    NDP_ASSIGN(report.missing, MarkVanished(store, root));
  }
  return report;
}

}  // namespace ndpipe::photo
