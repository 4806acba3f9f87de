#include "ndpipe/base/sqlite.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace ndpipe::sqlite {
namespace {

constexpr const char* kMigrations[] = {"CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)",
                                       "ALTER TABLE t ADD COLUMN c BLOB"};

class SqliteTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("sqlite_test." + std::to_string(::getpid()));
  std::filesystem::path path_ = folder_ / "test.db";
};

TEST_F(SqliteTest, MigratesFromEveryVersionAndKeepsRows) {
  {
    auto db = Database::Open(path_, std::span(kMigrations).first(1));
    ASSERT_TRUE(db);
    ASSERT_TRUE(db->Run("INSERT INTO t VALUES (?1, ?2)", 1, "one"));
  }
  auto db = Database::Open(path_, kMigrations);
  ASSERT_TRUE(db);
  EXPECT_EQ(**db->QueryInt("SELECT count(*) FROM t WHERE c IS NULL AND b = ?1", "one"), 1);
}

TEST_F(SqliteTest, RefusesADatabaseOfANewerProgram) {
  ASSERT_TRUE(Database::Open(path_, kMigrations));
  const auto older = Database::Open(path_, std::span(kMigrations).first(1));
  ASSERT_FALSE(older);
  EXPECT_EQ(older.error().code, ErrorCode::kFailedPrecondition);
  EXPECT_NE(older.error().message.find("newer ndpipe"), std::string::npos);
}

TEST_F(SqliteTest, RefusesAFileThatIsNoDatabase) {
  std::ofstream(path_) << std::string(5000, 'x');
  EXPECT_EQ(Database::Open(path_, kMigrations).error().code, ErrorCode::kDataLoss);
}

TEST_F(SqliteTest, UncommittedTransactionLeavesNothing) {
  auto db = Database::Open(path_, kMigrations);
  ASSERT_TRUE(db);
  {
    auto transaction = Transaction::Begin(*db);
    ASSERT_TRUE(transaction);
    ASSERT_TRUE(db->Run("INSERT INTO t(a) VALUES (1)"));
  }
  EXPECT_EQ(**db->QueryInt("SELECT count(*) FROM t"), 0);
}

TEST_F(SqliteTest, ConstraintErrorsHaveTheirCodes) {
  auto db = Database::Open(path_, kMigrations);
  ASSERT_TRUE(db);
  ASSERT_TRUE(db->Run("INSERT INTO t(a) VALUES (1)"));
  EXPECT_EQ(db->Run("INSERT INTO t(a) VALUES (1)").error().code, ErrorCode::kAlreadyExists);
}

}  // namespace
}  // namespace ndpipe::sqlite
